// What a node of torch's autograd needs, and what goes from C++ to Python and back.

#pragma once

#include <ATen/TensorSubclassLikeUtils.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/Exceptions.h>

namespace {

using at::Tensor;
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

}  // namespace
