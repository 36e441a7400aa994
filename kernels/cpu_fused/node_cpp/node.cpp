// From Python to the kernels of batch_norm.cpp and, through autograd, back again, in one call: no Python in between.
//
// `fused/block.py`, `kernel_calls.py` and `fused/autograd.py` do the same in Python, which takes longer than a kernel
// does on a small matrix. Forward, what is in any way unusual is left to them (`Arguments`). Backward, what isn't plain
// numbers, and what shall be differentiated again, goes to the function in Python.

#include "arguments.h"
#include "kernel_calls.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/Dtype.h>
#include <torch/csrc/dynamo/compiled_autograd.h>
#include <torch/csrc/Exceptions.h>

namespace {

using torch::autograd::SavedVariable;
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

// A node as torch's own: `torch::autograd::Function` would box what is kept, and needs a fifth of the time of a block's
// backward on a small matrix for it.
class BatchNormBlock : public torch::autograd::Node {
public:
    std::string name() const override { return "BatchNormBlockBackward"; }

    void keep(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual, const Output& output,
              const Form& its_form) {
        set_next_edges(torch::autograd::collect_next_edges(x, weight, bias, residual));
        form = its_form, adds = residual.defined(), keeps_output = adds && form.activation;
        of_input = SavedVariable(x, false), of_weight = SavedVariable(weight, false);
        of_bias = SavedVariable(bias, false), of_saved = SavedVariable(output.saved, false);
        if (keeps_output) of_output = SavedVariable(output.y, true);
    }

    variable_list apply(variable_list&& gradients) override {
        const std::lock_guard<std::mutex> lock(mutex_);
        const Tensor x = of_input.unpack(), weight = of_weight.unpack(), bias = of_bias.unpack();
        const Tensor saved = of_saved.unpack(), y = keeps_output ? of_output.unpack(getptr()) : Tensor();
        const Tensor& dy = gradients[0];
        if (!dy.defined()) return variable_list(num_outputs());
        const bool again = at::GradMode::is_enabled() || !is_plain(dy);
        variable_list found = again ? in_python(dy, x, weight, bias, saved, y, form)
                                    : gradients_of(dy, x, weight, bias, saved, y, form, task_should_compute_output(0));
        found.resize(4);
        if (!y.defined()) found[3] = dy;  // of a residual without an activation
        if (!weight.defined()) found[1] = Tensor();
        if (!bias.defined()) found[2] = Tensor();
        if (!adds) found[3] = Tensor();
        return found;
    }

    void release_variables() override {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (auto* kept : {&of_input, &of_weight, &of_bias, &of_saved, &of_output}) kept->reset_data();
    }

    // For compiled autograd, which calls it with fakes of what was kept, and records the operations.
    void compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const override {
        for (const auto* kept : {&of_input, &of_weight, &of_bias, &of_saved}) args.collect(*kept, false);
        args.collect(of_output, true);
        for (const bool is : {form.training, form.pool, adds, keeps_output}) args.collect(is);
        args.collect(form.activation), args.collect(form.eps);
    }

    variable_list apply_with_saved(const variable_list& gradients,
                                   torch::dynamo::autograd::SwapSavedVariables& fakes) override {
        const std::array<SavedVariable*, 5> all{&of_input, &of_weight, &of_bias, &of_saved, &of_output};
        for (auto* kept : all) fakes.before(*kept);
        const variable_list found = apply(variable_list(gradients));
        for (auto* kept : all) fakes.after(*kept);
        return found;
    }

private:
    SavedVariable of_input, of_weight, of_bias, of_saved, of_output;
    Form form{};
    bool adds = false, keeps_output = false;
};

// torch counts references to nodes in one of two ways, by version.
template <class Kind>
auto new_node() {
    if constexpr (std::is_base_of_v<c10::intrusive_ptr_target, Kind>)
        return c10::make_intrusive<Kind>();
    else
        return std::shared_ptr<Kind>(new Kind(), [](Kind* node) { deleteNode(node); });
}

Tensor differentiable(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual,
                      const Call& call) {
    const auto node = new_node<BatchNormBlock>();
    const Output output = normalized(x, weight, bias, residual, call);
    torch::autograd::set_history(output.y, node);
    node->keep(x, weight, bias, residual, output, call.form);
    return output.y;
}

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
        y = differentiates ? differentiable(x, weight, bias, residual, call)
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
