// From Python to the kernels of batch_norm.cpp and, through autograd, back again, in one call: no Python in between.
//
// `fused/block.py`, `kernel_calls.py` and `fused/autograd.py` do the same in Python, which takes longer than a kernel
// does on a small matrix. Forward, what is in any way unusual is left to them (`Arguments`). Backward, what isn't plain
// numbers, and what shall be differentiated again, goes to the function in Python.

#include "arguments.h"
#include "kernel_calls.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/Dtype.h>
#include <torch/csrc/Exceptions.h>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

PyObject* backward_in_python = nullptr;

struct Gil {
    PyGILState_STATE state = PyGILState_Ensure();
    ~Gil() { PyGILState_Release(state); }
};

struct NoGil {
    PyThreadState* state = PyEval_SaveThread();
    ~NoGil() { PyEval_RestoreThread(state); }
};

[[noreturn]] void raise_again() {
    python_error error;
    error.persist();
    throw std::move(error);
}

struct Owned {
    explicit Owned(PyObject* object) : object(object) {
        if (!object) raise_again();
    }
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    ~Owned() { Py_DECREF(object); }
    PyObject* object;
};

// --- Backward, where it isn't for the kernels ------------------------------------------------------------------------

// Whether it holds numbers that nobody watches, batches or differentiates: what `gradients_of` of `fused/autograd.py`
// asks.
bool is_plain(const Tensor& dy) {
    return dy.is_cpu() && dy.layout() == at::kStrided && !at::isTensorSubclassLike(dy) && !dy._is_zerotensor() &&
           !dy.is_neg() && !c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::Tracer) &&
           !dy._fw_grad(0).defined() && (dy.numel() == 0 || dy.data_ptr());
}

PyObject* wrapped(const Tensor& t) {
    if (t.defined()) return THPVariable_Wrap(t);
    Py_RETURN_NONE;
}

variable_list in_python(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const Tensor& saved, const Tensor& y, const Form& form) {
    Gil gil;
    const Owned arguments(Py_BuildValue("(NNNNNN(OLO)d)", wrapped(dy), wrapped(x), wrapped(saved), wrapped(weight),
                                        wrapped(bias), wrapped(y), form.training ? Py_True : Py_False,
                                        static_cast<long long>(form.activation), form.pool ? Py_True : Py_False,
                                        form.eps));
    const Owned answer(PyObject_CallObject(backward_in_python, arguments.object));
    const Owned items(PySequence_Tuple(answer.object));
    variable_list gradients;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items.object); i++) {
        PyObject* const item = PyTuple_GET_ITEM(items.object, i);
        gradients.push_back(item == Py_None ? Tensor() : THPVariable_Unpack(item));
    }
    return gradients;
}

// --- Autograd --------------------------------------------------------------------------------------------------------

using Optional = std::optional<Tensor>;

Tensor given(const Optional& t) { return t ? *t : Tensor(); }

Optional as_optional(const Tensor& t) { return t.defined() ? Optional(t) : Optional(); }

class BatchNormBlock : public torch::autograd::Function<BatchNormBlock> {
public:
    static Tensor forward(AutogradContext* ctx, const Tensor& x, const Optional& of_weight, const Optional& of_bias,
                          const Optional& of_residual, const Call& call) {
        const Tensor weight = given(of_weight), bias = given(of_bias), residual = given(of_residual);
        Output output = normalized(x, weight, bias, residual, call);
        const Form& form = call.form;
        const bool keeps_output = residual.defined() && form.activation;
        ctx->save_for_backward({x, weight, bias, output.saved, keeps_output ? output.y : Tensor()});
        ctx->saved_data["form"] =
            std::make_tuple(form.training, form.pool, residual.defined(), form.activation, form.eps);
        return output.y;
    }

    static variable_list backward(AutogradContext* ctx, variable_list gradients) {
        const variable_list kept = ctx->get_saved_variables();
        const auto [training, pool, adds, activation, eps] =
            ctx->saved_data["form"].to<std::tuple<bool, bool, bool, int64_t, double>>();
        const Form form{training, pool, activation, eps};
        const Tensor &dy = gradients[0], &x = kept[0], &weight = kept[1], &bias = kept[2], &saved = kept[3],
                     &y = kept[4];
        const bool again = at::GradMode::is_enabled() || !is_plain(dy);
        variable_list found =
            again ? in_python(dy, x, weight, bias, saved, y, form) : gradients_of(dy, x, weight, bias, saved, y, form);
        found.resize(5);
        if (!y.defined()) found[3] = dy;  // of a residual without an activation
        if (!weight.defined()) found[1] = Tensor();
        if (!bias.defined()) found[2] = Tensor();
        if (!adds) found[3] = Tensor();
        return found;
    }
};

// --- What Python calls -----------------------------------------------------------------------------------------------

bool needs_gradient(const Tensor& t) { return t.defined() && t.requires_grad(); }

// The output of the block, or NotImplemented; the arguments are `Arguments::Place`.
PyObject* block(PyObject*, PyObject* const* given, Py_ssize_t count) {
    HANDLE_TH_ERRORS
    TORCH_CHECK(count == Arguments::COUNT, "block takes 12 arguments, not ", count);
    const Arguments arguments(given);
    if (!arguments.are_usual()) Py_RETURN_NOTIMPLEMENTED;
    Tensor x = arguments.tensor(Arguments::INPUT);
    const Tensor weight = arguments.tensor(Arguments::WEIGHT), bias = arguments.tensor(Arguments::BIAS);
    const Tensor residual = arguments.tensor(Arguments::RESIDUAL);
    const Call call = arguments.call();
    Tensor y;
    {
        NoGil no_gil;
        if (!x.is_contiguous() && !in_rows(x)) x = x.contiguous();
        const bool differentiates = at::GradMode::is_enabled() && (needs_gradient(x) || needs_gradient(weight) ||
                                                                   needs_gradient(bias) || needs_gradient(residual));
        y = differentiates
                ? BatchNormBlock::apply(x, as_optional(weight), as_optional(bias), as_optional(residual), call)
                : normalized(x, weight, bias, residual, call).y;
    }
    return THPVariable_Wrap(std::move(y));
    END_HANDLE_TH_ERRORS
}

// (backward_in_python): once.
PyObject* connect(PyObject*, PyObject* backward) {
    backward_in_python = Py_NewRef(backward);
    Py_RETURN_NONE;
}

// (dtype, the addresses of its library's four functions)
PyObject* know(PyObject*, PyObject* arguments) {
    HANDLE_TH_ERRORS
    PyObject* dtype;
    unsigned long long a[4];
    if (!PyArg_ParseTuple(arguments, "OKKKK", &dtype, &a[0], &a[1], &a[2], &a[3])) return nullptr;
    TORCH_CHECK(THPDtype_Check(dtype), "know takes a torch.dtype");
    libraries[static_cast<size_t>(reinterpret_cast<THPDtype*>(dtype)->scalar_type)] = {
        reinterpret_cast<Kernels::Forward>(a[0]), reinterpret_cast<Kernels::Backward>(a[1]),
        reinterpret_cast<Kernels::ResidualForward>(a[2]), reinterpret_cast<Kernels::ResidualBackward>(a[3])};
    Py_RETURN_NONE;
    END_HANDLE_TH_ERRORS
}

// (elements_per_thread): `ELEMENTS_PER_THREAD` of kernel_calls.py.
PyObject* divide(PyObject*, PyObject* elements) {
    const long long given = PyLong_AsLongLong(elements);
    if (PyErr_Occurred()) return nullptr;
    elements_per_thread = std::max<long long>(1, given);
    Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"block", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(block)), METH_FASTCALL, nullptr},
    {"connect", connect, METH_O, nullptr},
    {"know", know, METH_VARARGS, nullptr},
    {"divide", divide, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "bnbench_node", nullptr, -1, methods};

}  // namespace

PyMODINIT_FUNC PyInit_bnbench_node() { return PyModule_Create(&module); }
