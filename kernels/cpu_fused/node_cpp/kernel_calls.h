// The calls into the library that batch_norm.cpp is compiled to: what `kernel_calls.py` does in Python.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace {

using at::Tensor;

// `Plan` of layout.h, field by field.
struct Plan {
    int64_t images, channels, height, width, in_rows, pool, activation, training, threads;
};

// The functions of a library, as batch_norm.cpp declares them; what they point to is of the library's types.
struct Kernels {
    using Forward = void (*)(const Plan*, const void* x, void* y, double* saved, const void* weight, const void* bias,
                             void* running_mean, void* running_var, double momentum, double eps);
    using Backward = void (*)(const Plan*, const void* x, const void* dy, void* dx, const double* saved,
                              const void* weight, const void* bias, void* dweight, void* dbias);
    using ResidualForward = void (*)(const Plan*, const void* x, const void* residual, void* y, double* saved,
                                     const void* weight, const void* bias, void* running_mean, void* running_var,
                                     double momentum, double eps);
    using ResidualBackward = void (*)(const Plan*, const void* x, const void* dy, const void* y, void* dx, void* dz,
                                      const double* saved, const void* weight, const void* bias, void* dweight,
                                      void* dbias);
    using FirstOfForward = void (*)(const Plan*, const void* x, double* moments);
    using SecondOfForward = void (*)(const Plan*, const void* x, const void* residual, void* y, const double* saved,
                                     const void* weight, const void* bias);
    using FirstOfBackward = void (*)(const Plan*, const void* x, const void* dy, const void* y, void* dz, void* notes,
                                     const double* saved, const void* weight, const void* bias, double* sums);
    using SecondOfBackward = void (*)(const Plan*, const void* x, const void* dy, void* dz, void* notes, void* dx,
                                      const double* saved, const void* weight, const void* bias, double* sums,
                                      double count);
    using Meet = double (*)(const double* every, double* saved, void* running_mean, void* running_var,
                            int64_t processes, int64_t channels, double momentum, double eps);
    Forward forward = nullptr;
    Backward backward = nullptr;
    ResidualForward residual_forward = nullptr;
    ResidualBackward residual_backward = nullptr;
    FirstOfForward first_of_forward = nullptr;
    SecondOfForward second_of_forward = nullptr;
    FirstOfBackward first_of_backward = nullptr;
    SecondOfBackward second_of_backward = nullptr;
    Meet meet = nullptr;
};

std::array<Kernels, static_cast<size_t>(at::ScalarType::NumOptions)> libraries;
int64_t elements_per_thread = 1;

const Kernels& library_of(const Tensor& x) { return libraries[static_cast<size_t>(x.scalar_type())]; }

// What doesn't change between forward and backward.
struct Form {
    bool training, pool;
    int64_t activation;
    double eps;
};

// --- Layouts: see `fused/layouts.py` ---------------------------------------------------------------------------------

bool in_planes(const Tensor& x) { return x.is_contiguous() && x.numel() != x.size(0) * x.size(1); }

bool in_rows(const Tensor& x) {
    int64_t expected = 1;
    const auto follows = [&](int64_t dim) {
        if (x.size(dim) == 1) return true;
        const bool right = x.stride(dim) == expected;
        expected *= x.size(dim);
        return right;
    };
    if (!follows(1)) return false;
    for (int64_t dim = x.dim() - 1; dim > 1; dim--)
        if (!follows(dim)) return false;
    return follows(0);
}

Tensor dense_like(const Tensor& t, bool planes) {
    if (planes) return t.contiguous();
    return in_rows(t) ? t : t.movedim(1, -1).contiguous().movedim(-1, 1);
}

Tensor output_memory(const Tensor& x, bool pool, bool planes) {
    if (!pool) return at::empty_like(x);
    const auto layout = planes ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast;
    return at::empty({x.size(0), x.size(1), x.size(2) / 2, x.size(3) / 2}, x.options(), layout);
}

Plan plan_of(const Tensor& x, const Form& form, bool planes) {
    const bool images = x.dim() == 4;
    int64_t pixels = 1;
    for (int64_t dim = 2; dim < x.dim(); dim++) pixels *= x.size(dim);
    const bool is_light = !(form.training || form.activation || form.pool);
    const int64_t threads = x.numel() / (elements_per_thread * (is_light ? 2 : 1));
    const int64_t useful = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), threads));
    return {x.size(0), x.size(1), images ? x.size(2) : 1, images ? x.size(3) : pixels,
            !planes,   form.pool, form.activation,        form.training,
            useful};
}

// --- Operands --------------------------------------------------------------------------------------------------------

at::ScalarType real_type(const Tensor& x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

Tensor as_real(const Tensor& parameter, at::ScalarType real) {
    if (!parameter.defined() || (parameter.scalar_type() == real && parameter.is_contiguous())) return parameter;
    return parameter.to(real).contiguous();
}

void give_back(const Tensor& parameter, const Tensor& real) {
    if (parameter.defined() && !parameter.is_same(real)) parameter.copy_(real);
}

// The address of a tensor's numbers, or null for one that isn't given; see `memory_of` of `routes.py`.
void* memory_of(const Tensor& t) {
    if (!t.defined()) return nullptr;
    void* const address = t.data_ptr();
    TORCH_CHECK(address, "a kernel can't read a tensor without memory: it is fake, on meta, or was freed");
    return address;
}

// Of one call.
struct Operands {
    Tensor x, weight, bias, residual;

    bool need_gradients() const {
        const auto needs_gradient = [](const Tensor& t) { return t.defined() && t.requires_grad(); };
        return at::GradMode::is_enabled() &&
               (needs_gradient(x) || needs_gradient(weight) || needs_gradient(bias) || needs_gradient(residual));
    }

    void make_dense() {
        if (!x.is_contiguous() && !in_rows(x)) x = x.contiguous();
    }
};

// --- Forward ---------------------------------------------------------------------------------------------------------

struct Call {
    Tensor running_mean, running_var, counter;
    std::optional<double> momentum;
    Form form;
};

// The weight of the batch in the running statistics; counts the batch. See `counted` of `fused/pair.py`.
double counted(const Call& call) {
    const Tensor& counter = call.counter;
    const int64_t batches = counter.defined() ? ++*counter.data_ptr<int64_t>() : 0;
    if (call.momentum) return *call.momentum;
    return batches ? 1.0 / static_cast<double>(batches) : 0.0;
}

// Someone who keeps one of these for a backward of its own has to hear that it moved; inference tensors refuse.
void note_change(const Tensor& t) {
    if (t.defined()) t.unsafeGetTensorImpl()->bump_version();
}

struct Output {
    Tensor y, saved;
};

Output normalized(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual, const Call& call) {
    const at::AutoDispatchBelowADInplaceOrView plain;
    const Kernels& kernels = library_of(x);
    const bool planes = in_planes(x);
    const Plan plan = plan_of(x, call.form, planes);
    const at::ScalarType real = real_type(x);
    Output output{output_memory(x, call.form.pool, planes), at::empty({2, x.size(1)}, x.options().dtype(at::kDouble))};
    const Tensor mean = as_real(call.running_mean, real), var = as_real(call.running_var, real);
    const Tensor scale = as_real(weight, real), shift = as_real(bias, real);
    const Tensor added = residual.defined() ? dense_like(residual, planes) : residual;
    void *const from = memory_of(x), *const addend = memory_of(added), *const into = output.y.data_ptr();
    void *const of_weight = memory_of(scale), *const of_bias = memory_of(shift);
    void *const of_mean = memory_of(mean), *const of_var = memory_of(var);
    double* const saved = output.saved.data_ptr<double>();
    // Nothing moves where one of these raises.
    if (call.form.training) {
        if (call.running_mean.defined() && call.running_var.defined())
            note_change(call.running_mean), note_change(call.running_var);
        note_change(call.counter);
    }
    const double momentum = counted(call), eps = call.form.eps;
    if (addend)
        kernels.residual_forward(&plan, from, addend, into, saved, of_weight, of_bias, of_mean, of_var, momentum, eps);
    else
        kernels.forward(&plan, from, into, saved, of_weight, of_bias, of_mean, of_var, momentum, eps);
    if (call.form.training) give_back(call.running_mean, mean), give_back(call.running_var, var);
    return output;
}

// --- Backward --------------------------------------------------------------------------------------------------------

// dx where it is asked for, dweight, dbias; and dz where the output is given.
std::vector<Tensor> gradients_of(const Tensor& gradient, const Tensor& x, const Tensor& weight, const Tensor& bias,
                                 const Tensor& saved, const Tensor& y, const Form& form, bool of_input) {
    const Kernels& kernels = library_of(x);
    const bool planes = in_planes(x);
    const Plan plan = plan_of(x, form, planes);
    const at::ScalarType real = real_type(x);
    const Tensor dy = dense_like(gradient, planes), dx = of_input ? at::empty_like(x) : Tensor();
    const auto of_channels = [&] {
        return weight.defined() ? at::empty_like(weight) : at::empty({x.size(1)}, x.options().dtype(real));
    };
    const Tensor dweight = of_channels(), dbias = of_channels();
    const Tensor of_weight = as_real(dweight, real), of_bias = as_real(dbias, real);
    const Tensor scale = as_real(weight, real), shift = as_real(bias, real);
    void* const into = of_input ? dx.data_ptr() : nullptr;
    const double* const moments = static_cast<const double*>(memory_of(saved));
    std::vector<Tensor> gradients{dx, dweight, dbias};
    if (y.defined()) {
        const Tensor output = dense_like(y, planes), dz = at::empty_like(x);
        kernels.residual_backward(&plan, memory_of(x), memory_of(dy), memory_of(output), into, dz.data_ptr(), moments,
                                  memory_of(scale), memory_of(shift), memory_of(of_weight), memory_of(of_bias));
        gradients.push_back(dz);
    } else {
        kernels.backward(&plan, memory_of(x), memory_of(dy), into, moments, memory_of(scale), memory_of(shift),
                         memory_of(of_weight), memory_of(of_bias));
    }
    give_back(dweight, of_weight), give_back(dbias, of_bias);
    return gradients;
}

}  // namespace
