// The arguments of a call from Python.

#pragma once

#include "kernel_calls.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <torch/csrc/autograd/python_variable.h>

namespace {

// One call as `batch_norm_block` of `fused/block.py` has it, where nothing about it is unusual: plain tensors of the
// usual types that go with each other, and nobody who watches, traces or transforms. All others are Python's to refuse,
// or to send another way.
class Arguments {
public:
    explicit Arguments(PyObject* const* given) : given(given) {}

    bool are_usual() const {
        if (c10::impl::dispatch_mode_enabled() || at::impl::PythonTorchFunctionTLS::stack_len() ||
            c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode) ||
            c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::Tracer))
            return false;
        for (const auto place : {INPUT, MEAN, VAR, WEIGHT, BIAS, RESIDUAL, COUNTER})
            if (!(is_none(place) ? place != INPUT : THPVariable_CheckExact(given[place]))) return false;
        return input_is_usual() && channels_are_usual() && settings_are_usual() && residual_is_usual();
    }

    Operands operands() const { return {tensor(INPUT), tensor(WEIGHT), tensor(BIAS), tensor(RESIDUAL)}; }

    Call call() const {
        const bool training = given[TRAINING] == Py_True;
        std::optional<double> momentum;
        if (!is_none(MOMENTUM)) momentum = PyFloat_AS_DOUBLE(given[MOMENTUM]);
        const Form form{training, !is_none(POOL), activation(), PyFloat_AS_DOUBLE(given[EPS])};
        return {tensor(MEAN), tensor(VAR), training ? tensor(COUNTER) : Tensor(), momentum, form};
    }

    enum Place { INPUT, MEAN, VAR, WEIGHT, BIAS, TRAINING, MOMENTUM, EPS, RESIDUAL, ACTIVATION, POOL, COUNTER, COUNT };

private:
    bool is_none(int place) const { return given[place] == Py_None; }

    Tensor tensor(int place) const { return is_none(place) ? Tensor() : THPVariable_Unpack(given[place]); }

    const Tensor& at(int place) const { return THPVariable_Unpack(given[place]); }

    static bool is_usual(const Tensor& t) {
        return t.is_cpu() && t.layout() == at::kStrided && !t.is_neg() && !at::isTensorSubclassLike(t);
    }

    bool input_is_usual() const {
        const Tensor& x = at(INPUT);
        return is_usual(x) && x.dim() >= 2 && x.numel() > 0 && libraries[static_cast<size_t>(x.scalar_type())].forward;
    }

    bool channels_are_usual() const {
        const Tensor& x = at(INPUT);
        const bool half = x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16;
        std::optional<at::ScalarType> common;
        for (const auto place : {MEAN, VAR, WEIGHT, BIAS}) {
            if (is_none(place)) continue;
            const Tensor& t = at(place);
            const at::ScalarType type = t.scalar_type();
            if (!is_usual(t) || t.dim() != 1 || t.numel() != x.size(1) || common.value_or(type) != type) return false;
            if (type != x.scalar_type() && !(half && type == at::kFloat)) return false;
            if (place <= VAR && (t.requires_grad() || t.stride(0) != 1)) return false;
            common = type;
        }
        return is_none(MEAN) == is_none(VAR);
    }

    bool settings_are_usual() const {
        const Tensor& x = at(INPUT);
        if (given[TRAINING] == Py_True ? x.numel() == x.size(1) : given[TRAINING] != Py_False || is_none(MEAN))
            return false;
        if (!is_none(COUNTER)) {
            const Tensor& counter = at(COUNTER);
            if (!is_usual(counter) || counter.scalar_type() != at::kLong || counter.numel() != 1) return false;
        }
        if (is_none(MOMENTUM) ? is_none(COUNTER) : !PyFloat_CheckExact(given[MOMENTUM])) return false;
        if (!PyFloat_CheckExact(given[EPS]) || !(PyFloat_AS_DOUBLE(given[EPS]) > 0)) return false;
        if (activation() < 0) return false;
        return is_none(POOL) || (PyLong_CheckExact(given[POOL]) && PyLong_AsLong(given[POOL]) == 2 && x.dim() == 4 &&
                                 x.size(2) > 1 && x.size(3) > 1);
    }

    bool residual_is_usual() const {
        if (is_none(RESIDUAL)) return true;
        const Tensor &x = at(INPUT), &residual = at(RESIDUAL);
        return is_none(POOL) && is_usual(residual) && residual.scalar_type() == x.scalar_type() &&
               residual.sizes() == x.sizes();
    }

    // `ACTIVATIONS` of `fused/pair.py`; -1 for another.
    int64_t activation() const {
        PyObject* const name = given[ACTIVATION];
        if (name == Py_None) return 0;
        if (!PyUnicode_CheckExact(name)) return -1;
        if (PyUnicode_CompareWithASCIIString(name, "sigmoid") == 0) return 1;
        return PyUnicode_CompareWithASCIIString(name, "relu") == 0 ? 2 : -1;
    }

    PyObject* const* given;
};

}  // namespace
