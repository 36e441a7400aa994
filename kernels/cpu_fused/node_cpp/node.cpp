// From Python to the kernels of batch_norm.cpp and, through autograd, back again, in one call: no Python in between.
//
// `fused/block.py`, `kernel_calls.py` and `fused/autograd.py` do the same in Python, which takes longer than a kernel
// does on a small matrix. Forward, what is in any way unusual is left to them (`Arguments`). Backward, what isn't plain
// numbers, and what shall be differentiated again, goes to the function in Python.

#include "arguments.h"
#include "autograd.h"
#include "kernel_calls.h"
#include "synchronized.h"

#include <torch/csrc/Dtype.h>
#include <torch/csrc/dynamo/compiled_autograd.h>

namespace {

PyObject* backward_in_python = nullptr;

// --- Backward, where it isn't for the kernels ------------------------------------------------------------------------

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

class BatchNormBlock : public BlockNode {
public:
    std::string name() const override { return "BatchNormBlockBackward"; }

    variable_list apply(variable_list&& gradients) override {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto [x, weight, bias, saved, y] = unpacked();
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
};

// --- What Python calls -----------------------------------------------------------------------------------------------

// The output of the block, or NotImplemented; the arguments are `Arguments::Place`.
PyObject* block(PyObject*, PyObject* const* given, Py_ssize_t count) {
    HANDLE_TH_ERRORS
    TORCH_CHECK(count == Arguments::COUNT, "block takes 12 arguments, not ", count);
    const Arguments arguments(given);
    if (!arguments.are_usual()) Py_RETURN_NOTIMPLEMENTED;
    Operands operands = arguments.operands();
    const Call call = arguments.call();
    const auto node = operands.need_gradients() ? new_node<BatchNormBlock>() : nullptr;
    Tensor y;
    {
        NoGil no_gil;
        operands.make_dense();
        const auto& [x, weight, bias, residual] = operands;
        const Output output = normalized(x, weight, bias, residual, call);
        y = output.y;
        if (node) {
            torch::autograd::set_history(y, node);
            node->keep(operands, y, output.saved, call.form);
        }
    }
    return THPVariable_Wrap(std::move(y));
    END_HANDLE_TH_ERRORS
}

// The same with the statistics of all processes: the arguments of a block in training, then `gather` and `reduce`.
PyObject* synchronized(PyObject*, PyObject* const* given, Py_ssize_t count) {
    HANDLE_TH_ERRORS
    TORCH_CHECK(count == Arguments::COUNT + 2, "synchronized takes 14 arguments, not ", count);
    const Arguments arguments(given);
    if (given[Arguments::TRAINING] != Py_True || !arguments.are_usual()) Py_RETURN_NOTIMPLEMENTED;
    Operands operands = arguments.operands();
    const Call call = arguments.call();
    PyObject *const gather = given[Arguments::COUNT], *const reduce = given[Arguments::COUNT + 1];
    const auto node = operands.need_gradients() ? new_node<SynchronizedBlock>(reduce) : nullptr;
    Tensor y;
    {
        NoGil no_gil;
        operands.make_dense();
        const Together output = normalized_together(operands, call, gather);
        y = output.y;
        if (node) {
            torch::autograd::set_history(y, node);
            node->keep(operands, y, output.saved, call.form);
            node->count = output.count;
        }
    }
    return THPVariable_Wrap(std::move(y));
    END_HANDLE_TH_ERRORS
}

// (backward_in_python): once.
PyObject* connect(PyObject*, PyObject* backward) {
    backward_in_python = Py_NewRef(backward);
    Py_RETURN_NONE;
}

// (dtype, the addresses of the functions of its library, in the order of `Kernels`)
PyObject* know(PyObject*, PyObject* const* given, Py_ssize_t count) {
    HANDLE_TH_ERRORS
    TORCH_CHECK(count == 10 && THPDtype_Check(given[0]), "know takes a torch.dtype and 9 addresses");
    Kernels kernels;
    PyObject* const* address = given;
    const auto take = [&](auto& function) {
        function = reinterpret_cast<std::decay_t<decltype(function)>>(PyLong_AsVoidPtr(*++address));
    };
    take(kernels.forward), take(kernels.backward), take(kernels.residual_forward), take(kernels.residual_backward);
    take(kernels.first_of_forward), take(kernels.second_of_forward);
    take(kernels.first_of_backward), take(kernels.second_of_backward), take(kernels.meet);
    if (PyErr_Occurred()) return nullptr;
    libraries[static_cast<size_t>(reinterpret_cast<THPDtype*>(given[0])->scalar_type)] = kernels;
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

using Fast = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);
PyCFunction as_method(Fast function) { return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)); }

PyMethodDef methods[] = {
    {"block", as_method(block), METH_FASTCALL, nullptr},
    {"synchronized", as_method(synchronized), METH_FASTCALL, nullptr},
    {"connect", connect, METH_O, nullptr},
    {"know", as_method(know), METH_FASTCALL, nullptr},
    {"divide", divide, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "bnbench_node", nullptr, -1, methods};

}  // namespace

PyMODINIT_FUNC PyInit_bnbench_node() { return PyModule_Create(&module); }
