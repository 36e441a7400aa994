// What a node of torch's autograd needs, and what goes from C++ to Python and back.

#pragma once

#include "kernel_calls.h"

#include <ATen/TensorSubclassLikeUtils.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/Exceptions.h>

namespace {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

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

// Whether it holds numbers that nobody watches, batches or differentiates: what `gradients_of` of `fused/autograd.py`
// asks.
bool is_plain(const Tensor& dy) {
    return dy.is_cpu() && dy.layout() == at::kStrided && !at::isTensorSubclassLike(dy) && !dy._is_zerotensor() &&
           !dy.is_neg() && !c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::Tracer) &&
           !dy._fw_grad(0).defined() && (dy.numel() == 0 || dy.data_ptr());
}

// torch counts references to nodes in one of two ways, by version.
template <class Kind, class... Arguments>
auto new_node(Arguments&&... arguments) {
    if constexpr (std::is_base_of_v<c10::intrusive_ptr_target, Kind>)
        return c10::make_intrusive<Kind>(std::forward<Arguments>(arguments)...);
    else
        return std::shared_ptr<Kind>(new Kind(std::forward<Arguments>(arguments)...),
                                     [](Kind* node) { deleteNode(node); });
}

// What a block keeps from forward to backward. A node as torch's own: `torch::autograd::Function` would box it, and
// needs a fifth of the time of a block's backward on a small matrix for that.
class BlockNode : public torch::autograd::Node {
public:
    void keep(const Operands& operands, const Tensor& y, const Tensor& saved, const Form& its_form) {
        const auto& [x, weight, bias, residual] = operands;
        set_next_edges(torch::autograd::collect_next_edges(x, weight, bias, residual));
        form = its_form, adds = residual.defined(), keeps_output = adds && form.activation;
        of_input = SavedVariable(x, false), of_weight = SavedVariable(weight, false);
        of_bias = SavedVariable(bias, false), of_saved = SavedVariable(saved, false);
        if (keeps_output) of_output = SavedVariable(y, true);
    }

    void release_variables() override {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (auto* kept : {&of_input, &of_weight, &of_bias, &of_saved, &of_output}) kept->reset_data();
    }

protected:
    struct Kept {
        Tensor x, weight, bias, saved, y;
    };

    Kept unpacked() {
        return {of_input.unpack(), of_weight.unpack(), of_bias.unpack(), of_saved.unpack(),
                keeps_output ? of_output.unpack(getptr()) : Tensor()};
    }

    SavedVariable of_input, of_weight, of_bias, of_saved, of_output;
    Form form{};
    bool adds = false, keeps_output = false;
};

}  // namespace
