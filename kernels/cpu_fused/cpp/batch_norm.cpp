// Batch norm, residual, activation and 2 x 2 max-pool for the CPU. Read this file first: it has the steps and what
// Python calls.
//
// Four steps do everything. Each works on some channels of a part of the tensor (a `Part`):
//
//     statistics       mean and centered sum of squares of each channel                     forward, training
//     apply            y = pool(activation((x - mean) / std * weight + bias + residual))    forward
//     backward_sums    sum(dz) and sum(dz (x - mean)), dz the gradient before activation    backward
//     backward_apply   dx = weight / std (dz - mean(dz) - x^ mean(dz x^))                   backward
//
// The first step of each pass, which finds the sums of whole channels, has to end before the second starts, so a pass
// reads its input twice. It writes its output once. The files, each of which needs only those above it:
//
//     numbers.h         the types of numbers
//     vectors.h         several numbers in one instruction
//     conversion.h      numbers of 16 bits in memory
//     layout.h          planes and rows: how a tensor lies in memory, and how it is cut into pieces
//     streaming.h       stores past the caches
//     channels.h        mean, scale, ... of each channel, in the form that the loops use
//     activation.h      sigmoid and relu, and their slopes
//     elementwise.h     normalize and activate, and the gradients of both, over a run of numbers
//     pool.h            which pixel of a window counts
//     statistics.h      mean and variance without loss of digits
//     gradient_sums.h   the two sums of the backward
//     residual.h        the gradient of what is added before the activation
//     plane_windows.h   pooling in planes
//     planes.h          the four steps on planes
//     lines.h           what loops over rows go through
//     row_windows.h     pooling in rows
//     rows.h            the four steps on rows
//     threads.h         which thread takes which part
//
// `library.py` compiles this file once for each type that tensors hold: -DSTORED=float, double, Half or BFloat16. All
// headers are part of this one translation unit, so the compiler can inline across them.

#include "planes.h"
#include "rows.h"
#include "threads.h"

#include <cmath>
#include <memory>
#include <vector>

namespace {

template <class Partial>
Partial merged(const std::vector<Partial>& partials, Index c, Index parts, Index channels) {
    Partial all = partials[c];
    for (Index part = 1; part < parts; part++) all.merge(partials[part * channels + c]);
    return all;
}

// The running statistics of a channel, moved by a batch's.
void move_running(const Moments& batch, Index c, Real* running_mean, Real* running_var, double momentum) {
    if (running_mean) running_mean[c] = Real((1 - momentum) * running_mean[c] + momentum * batch.mean);
    const double unbiased = batch.m2 / (batch.count - 1);
    if (running_var) running_var[c] = Real((1 - momentum) * running_var[c] + momentum * unbiased);
}

// Which steps of a pass are taken. Where the batch is divided over processes these meet between the two.
enum Only { BOTH, FIRST, SECOND };

// With FIRST, only x is read, and `saved` gets mean and centered sum of squares; with SECOND, `saved` has mean and 1 /
// std.
template <class Layout>
void forward(const Plan& plan, const Stored* x, const Stored* residual, Stored* y, double* saved, const Real* weight,
             const Real* bias, Real* running_mean, Real* running_var, double momentum, double eps, Only only) {
    const Layout layout(plan);
    ChannelTable table(plan.channels, layout.copies(), weight, bias);
    if (plan.pool) table.set_signs();
    std::vector<Moments> partials(plan.training ? plan.threads * plan.channels : 0);
    const auto collect = [&](Part part, Index number, Scratch& scratch) {
        if (plan.training) layout.statistics(x, table, part, partials.data() + number * plan.channels, y, scratch);
    };
    const auto finish = [&](Index c, Index parts) {
        double mean, var;
        if (only == SECOND) return table.set_forward(c, saved[c], saved[plan.channels + c]);
        if (plan.training) {
            const Moments all = merged(partials, c, parts, plan.channels);
            mean = all.mean, var = all.m2 / all.count;
            if (only == FIRST) {
                saved[c] = mean, saved[plan.channels + c] = all.m2;
                return;
            }
            move_running(all, c, running_mean, running_var, momentum);
        } else {
            mean = running_mean[c], var = running_var[c];
        }
        const double inverse_std = 1 / std::sqrt(var + eps);
        saved[c] = mean, saved[plan.channels + c] = inverse_std;
        table.set_forward(c, mean, inverse_std);
    };
    const auto use = [&](Part part, Scratch& scratch) {
        if (only != FIRST) layout.apply(x, residual, table, part, y, scratch);
    };
    in_two_steps(layout, plan, collect, finish, use);
}

// Memory for the notes of backward_sums: that of dx where it holds Real, else memory of its own.
inline Real* notepad(Real* dx, Index, std::unique_ptr<Real[]>&) { return dx; }

template <class Other>
inline Real* notepad(Other* dx, Index count, std::unique_ptr<Real[]>& wider) {
    if (dx) wider.reset(new Real[count]);
    return wider.get();
}

// What the two steps have in common where they are taken one by one: the notes, in memory of the caller; sum(dz) and
// sum(dz x^), which the first gives for the own batch and the second takes for the whole one, and its count.
struct Between {
    Only only = BOTH;
    Real* notes = nullptr;
    double* sums = nullptr;
    double count = 0;
};

template <class Layout>
void backward(const Plan& plan, const Stored* x, const Stored* dy, WithResidual with, Stored* dx, const double* saved,
              const Real* weight, const Real* bias, Real* dweight, Real* dbias, Between between) {
    const Layout layout(plan);
    Plan without_activation = plan;  // for the second step, where a residual's dz comes in place of dy
    if (with.dz) without_activation.activation = NONE;
    const Layout second(without_activation);
    ChannelTable table(plan.channels, layout.copies(), weight, bias);
    if (plan.pool) table.set_signs();
    const double *mean = saved, *inverse_std = saved + plan.channels;
    for (Index c = 0; c < plan.channels; c++) table.set_forward(c, mean[c], inverse_std[c]);
    std::vector<Sums> partials(plan.threads * plan.channels);
    // dz waits for the second step in the memory where dx will be; in rows also which pixel of a window it goes to.
    std::unique_ptr<Real[]> wider;
    const Index all = plan.images * plan.channels * plan.height * plan.width;
    Real* const notes = with.dz ? nullptr : between.only ? between.notes : notepad(dx, all, wider);
    const auto collect = [&](Part part, Index number, Scratch& scratch) {
        Sums* sums = partials.data() + number * plan.channels;
        if (between.only == SECOND) return;
        if (with.dz)
            layout.residual_sums(x, dy, with, table, part, sums, scratch);
        else
            layout.backward_sums(x, dy, table, part, sums, notes, scratch);
    };
    const auto finish = [&](Index c, Index parts) {
        double* const sums = between.sums;
        if (between.only == SECOND)
            return table.set_backward(c, mean[c], inverse_std[c], sums[c], sums[plan.channels + c], between.count);
        const Sums all = merged(partials, c, parts, plan.channels);
        const double of_weight = (all.dz_x - ChannelTable::rest(mean[c]) * all.dz) * inverse_std[c];
        if (between.only == FIRST) {
            sums[c] = all.dz, sums[plan.channels + c] = of_weight;
            return;
        }
        dbias[c] = Real(all.dz), dweight[c] = Real(of_weight);
        if (!plan.training) return;
        const double count = double(plan.images * plan.height * plan.width);
        table.set_backward(c, mean[c], inverse_std[c], all.dz, of_weight, count);
    };
    const auto use = [&](Part part, Scratch& scratch) {
        if (dx) second.backward_apply(x, with.dz ? with.dz : dy, table, part, dx, notes, scratch);
    };
    in_two_steps(layout, plan, collect, finish, use);
}

}  // namespace

extern "C" {

const char* compiler() {
#ifdef __clang__
    return "clang " __clang_version__;
#else
    return "g++ " __VERSION__;
#endif
}

int has_openmp() {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

// x, y: as `plan` says. residual: as x, and the plan has no pool; or null. saved: mean and 1 / std, (2, C). weight,
// bias, running_mean, running_var: (C,) or null.
void residual_forward(const Plan* plan, const Stored* x, const Stored* residual, Stored* y, double* saved,
                      const Real* weight, const Real* bias, Real* running_mean, Real* running_var, double momentum,
                      double eps) {
    (plan->in_rows ? forward<Rows> : forward<Planes>)(*plan, x, residual, y, saved, weight, bias, running_mean,
                                                      running_var, momentum, eps, BOTH);
}

// y, dz: as x, where the forward had a residual and an activation; or null. dx: as x, or null where nobody asks for it.
// dweight, dbias: (C,).
void residual_backward(const Plan* plan, const Stored* x, const Stored* dy, const Stored* y, Stored* dx, Stored* dz,
                       const double* saved, const Real* weight, const Real* bias, Real* dweight, Real* dbias) {
    (plan->in_rows ? backward<Rows> : backward<Planes>)(*plan, x, dy, {y, dz}, dx, saved, weight, bias, dweight, dbias,
                                                        {});
}

// The same without a residual: for Python every argument of its own takes time.
void batch_norm_forward(const Plan* plan, const Stored* x, Stored* y, double* saved, const Real* weight,
                        const Real* bias, Real* running_mean, Real* running_var, double momentum, double eps) {
    residual_forward(plan, x, nullptr, y, saved, weight, bias, running_mean, running_var, momentum, eps);
}

void batch_norm_backward(const Plan* plan, const Stored* x, const Stored* dy, Stored* dx, const double* saved,
                         const Real* weight, const Real* bias, Real* dweight, Real* dbias) {
    residual_backward(plan, x, dy, nullptr, dx, nullptr, saved, weight, bias, dweight, dbias);
}

// The steps one by one; see `Only` and `Between`. moments, sums: (2, C).
void first_of_forward(const Plan* plan, const Stored* x, double* moments) {
    (plan->in_rows ? forward<Rows> : forward<Planes>)(*plan, x, nullptr, nullptr, moments, nullptr, nullptr, nullptr,
                                                      nullptr, 0, 0, FIRST);
}

// What is between the two, for a batch that processes have parts of. every: count, means and centered sums of squares
// of each process, (processes, 2 C + 1). saved: mean and 1 / std, (2, C). Returns the count of the whole batch; where
// that is less than two, nothing else is done.
double meet(const double* every, double* saved, Real* running_mean, Real* running_var, Index processes, Index channels,
            double momentum, double eps) {
    const Index sent = 2 * channels + 1;
    double count = 0;
    for (Index process = 0; process < processes; process++) count += every[process * sent];
    if (count < 2) return count;
    for (Index c = 0; c < channels; c++) {
        Moments all;
        for (const double* one = every; one < every + processes * sent; one += sent)
            all.merge({one[0], one[1 + c], one[1 + channels + c]});
        move_running(all, c, running_mean, running_var, momentum);
        saved[c] = all.mean, saved[channels + c] = 1 / std::sqrt(all.m2 / all.count + eps);
    }
    return count;
}

void second_of_forward(const Plan* plan, const Stored* x, const Stored* residual, Stored* y, double* saved,
                       const Real* weight, const Real* bias) {
    (plan->in_rows ? forward<Rows> : forward<Planes>)(*plan, x, residual, y, saved, weight, bias, nullptr, nullptr, 0,
                                                      0, SECOND);
}

// y, dz: as in residual_backward. notes: Real, as many as x has; may be the memory of dx.
void first_of_backward(const Plan* plan, const Stored* x, const Stored* dy, const Stored* y, Stored* dz, Real* notes,
                       const double* saved, const Real* weight, const Real* bias, double* sums) {
    (plan->in_rows ? backward<Rows> : backward<Planes>)(*plan, x, dy, {y, dz}, nullptr, saved, weight, bias, nullptr,
                                                        nullptr, {FIRST, notes, sums, 0});
}

void second_of_backward(const Plan* plan, const Stored* x, const Stored* dy, Stored* dz, Real* notes, Stored* dx,
                        const double* saved, const Real* weight, const Real* bias, double* sums, double count) {
    (plan->in_rows ? backward<Rows> : backward<Planes>)(*plan, x, dy, {nullptr, dz}, dx, saved, weight, bias, nullptr,
                                                        nullptr, {SECOND, notes, sums, count});
}
}
