// A block in training with the statistics of all processes: what `synchronized.py` does in Python.
//
// Between its steps it asks the other processes, through functions in Python: `gather` for the moments of each one's
// batch, `reduce` for the sums over all batches.

#pragma once

#include "autograd.h"
#include "kernel_calls.h"

#include <c10/core/SafePyObject.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/PyInterpreter.h>

namespace {

Tensor asked(PyObject* others, const Tensor& own) {
    Gil gil;
    const Owned argument(THPVariable_Wrap(own)), answer(PyObject_CallOneArg(others, argument.object));
    return answer.object == Py_None ? Tensor() : THPVariable_Unpack(answer.object);
}

// Of the own batch, as `Moments` of `steps.py` has them: the values per channel, means, centered sums of squares.
Tensor moments_of(const Tensor& x, const Plan& plan) {
    const at::AutoDispatchBelowADInplaceOrView plain;
    const int64_t channels = x.size(1);
    // One number more at the head: see `Moments.blank`.
    const Tensor memory = at::empty({2 * channels + 2}, x.options().dtype(at::kDouble));
    double* const numbers = memory.data_ptr<double>();
    numbers[1] = static_cast<double>(x.numel() / channels);
    library_of(x).first_of_forward(&plan, memory_of(x), numbers + 2);
    return memory.narrow(0, 1, 2 * channels + 1);
}

struct Together {
    Tensor y, saved;
    double count;  // of the whole batch
};

Together normalized_together(const Operands& operands, const Call& call, PyObject* gather) {
    const auto& [x, weight, bias, residual] = operands;
    const bool planes = in_planes(x);
    const int64_t channels = x.size(1);
    const double eps = call.form.eps;
    const Tensor every = asked(gather, moments_of(x, plan_of(x, {true, false, 0, eps}, planes)));
    TORCH_CHECK(every.dim() == 2 && every.size(1) == 2 * channels + 1 && every.is_contiguous(),
                "gather gives the moments of each process");
    const at::AutoDispatchBelowADInplaceOrView plain;
    const Kernels& kernels = library_of(x);
    const at::ScalarType real = real_type(x);
    const Tensor y = output_memory(x, call.form.pool, planes);
    const Tensor saved = at::empty({2, channels}, x.options().dtype(at::kDouble));
    const Tensor mean = as_real(call.running_mean, real), var = as_real(call.running_var, real);
    const Tensor scale = as_real(weight, real), shift = as_real(bias, real);
    const Tensor added = residual.defined() ? dense_like(residual, planes) : residual;
    note_change(call.running_mean), note_change(call.running_var);
    double* const normal = saved.data_ptr<double>();
    const double count = kernels.meet(every.data_ptr<double>(), normal, memory_of(mean), memory_of(var), every.size(0),
                                      channels, *call.momentum, eps);
    give_back(call.running_mean, mean), give_back(call.running_var, var);
    const Plan plan = plan_of(x, {false, call.form.pool, call.form.activation, eps}, planes);
    kernels.second_of_forward(&plan, memory_of(x), memory_of(added), y.data_ptr(), normal, memory_of(scale),
                              memory_of(shift));
    return {y, saved, count};
}

class SynchronizedBlock : public BlockNode {
public:
    explicit SynchronizedBlock(PyObject* reduce) : reduce(Py_NewRef(reduce), getPyInterpreter()) {}

    std::string name() const override { return "SynchronizedBlockBackward"; }

    // Every process has to come here, whatever its gradient is: the others wait for its sums.
    variable_list apply(variable_list&& gradients) override {
        const std::lock_guard<std::mutex> lock(mutex_);
        const bool again = at::GradMode::is_enabled();
        variable_list found;
        {
            const at::AutoGradMode once(false);
            found = gradients_together(gradients[0].defined() ? gradients[0] : input_metadata(0).zeros_like());
        }
        if (!again) return found;
        for (Tensor& each : found)
            if (each.defined()) each = each.detach().set_requires_grad(true);
        return new_node<torch::autograd::DelayedError>("synchronized batch norm can't be differentiated twice", 4)
            ->apply(std::move(found));
    }

    double count = 0;  // of the whole batch

private:
    variable_list gradients_together(const Tensor& gradient) {
        TORCH_CHECK_NOT_IMPLEMENTED(is_plain(gradient),
                                    "synchronized batch norm takes gradients that are plain numbers");
        const auto kept = unpacked();
        const Tensor &x = kept.x, &weight = kept.weight, &bias = kept.bias, &saved = kept.saved, &y = kept.y;
        const Kernels& kernels = library_of(x);
        const at::ScalarType real = real_type(x);
        const bool planes = in_planes(x);
        const Plan plan = plan_of(x, form, planes);
        const Tensor dy = dense_like(gradient, planes), dx = at::empty_like(x), sums = at::empty_like(saved);
        const Tensor output = keeps_output ? dense_like(y, planes) : y;
        const Tensor scale = as_real(weight, real), shift = as_real(bias, real);
        Tensor dz, notes;  // the gradient before the activation, a residual's or else as notes in the memory of dx
        if (keeps_output)
            dz = at::empty_like(x);
        else if (form.pool || form.activation)
            notes = x.scalar_type() == real ? dx : at::empty_like(x, x.options().dtype(real));
        const void* const from = memory_of(x);
        const double* const normal = static_cast<const double*>(memory_of(saved));
        double* const of_sums = sums.data_ptr<double>();
        kernels.first_of_backward(&plan, from, memory_of(dy), memory_of(output), memory_of(dz), memory_of(notes),
                                  normal, memory_of(scale), memory_of(shift), of_sums);
        variable_list found(4);
        // Of the own batch: `DistributedDataParallel` averages them.
        const auto own = [&](int64_t row, const Tensor& like) { return sums[row].to(like.scalar_type(), false, true); };
        if (weight.defined() && task_should_compute_output(1)) found[1] = own(1, weight);
        if (bias.defined() && task_should_compute_output(2)) found[2] = own(0, bias);
        asked(reduce.ptr(getPyInterpreter()), sums);
        if (task_should_compute_output(0)) {
            kernels.second_of_backward(&plan, from, memory_of(dy), memory_of(dz), memory_of(notes), dx.data_ptr(),
                                       normal, memory_of(scale), memory_of(shift), of_sums, count);
            found[0] = dx;
        }
        if (adds && task_should_compute_output(3)) found[3] = keeps_output ? dz : dy;
        return found;
    }

    c10::SafePyObject reduce;
};

}  // namespace
