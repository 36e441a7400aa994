// Batch norm, activation and 2 x 2 max-pool for the CPU: the data are read twice each way and written once.
//
// `_cpu_library.py` compiles this file on first use, once for each type of number that tensors hold: -DSTORED=float,
// double, Half or BFloat16. 16-bit numbers are widened to float, calculated with, and rounded once.
//
// A tensor is `planes`, (N, C, H, W) with a channel's pixels next to each other, or `rows`, (N, H, W, C) with a
// pixel's channels next to each other; a matrix (N, C) is rows of one pixel per image. The loops run over numbers
// that are next to each other, and the compiler makes vector instructions of them.
//
// Four steps do everything, each for some channels of some images:
//
//     moments   mean and centred sum of squares of each channel                     forward, training
//     apply     y = pool(activation((x - mean) / std * weight + bias))              forward
//     sums      sum(dz) and sum(dz (x - mean)), dz the gradient before activation   backward
//     spread    dx = weight / std (dz - mean(dz) - x^ mean(dz x^))                  backward
//
// An activation rises, so the largest output of a window comes from its largest x, or from its smallest where weight
// is negative. Pooling x leaves a quarter of the activations to calculate, and nothing to save for the backward.
// Where activations collapse to one number, the gradient goes to the true maximum.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef _OPENMP
extern "C" int omp_get_thread_num();
extern "C" int omp_get_num_threads();
#endif

// Before a loop: no turn of it needs another's outcome, so they may be done in one vector.
#ifdef __clang__
#define SIDE_BY_SIDE _Pragma("clang loop vectorize(assume_safety)")
#else
#define SIDE_BY_SIDE _Pragma("GCC ivdep")
#endif

namespace {

using Index = std::int64_t;

// --- Numbers ------------------------------------------------------------------------------------------------------

template <class To, class From>
inline To bits_of(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

struct BFloat16 {  // the upper half of a float
    std::uint16_t bits;

    BFloat16() = default;

    explicit BFloat16(float value) {  // to the nearest, ties to even
        const auto wide = bits_of<std::uint32_t>(value);
        const std::uint32_t rounded = wide + 0x7fff + ((wide >> 16) & 1);
        bits = std::uint16_t((value != value ? 0x7fc00000 : rounded) >> 16);
    }

    operator float() const { return bits_of<float>(std::uint32_t(bits) << 16); }
};

#ifdef __FLT16_MANT_DIG__
using Half = _Float16;
#endif

#ifndef STORED
#define STORED float
#endif
using Stored = STORED;                                                           // what tensors hold
using Real = std::conditional_t<std::is_same_v<Stored, double>, double, float>;  // what is calculated with
constexpr bool WIDE = std::is_same_v<Real, double>;
using Word = std::conditional_t<WIDE, std::uint64_t, std::uint32_t>;  // of Real's size

// So many numbers are worked on at a time. They stay in the first cache from one loop to the next, and no sum of
// Real's is longer before it goes on in double.
constexpr Index TILE = 2048;

// Numbers as Real's: where they are, or in `room`.
inline const Real* widened(const Real* x, Index, Real*) { return x; }

template <class Other>
inline const Real* widened(const Other* x, Index count, Real* room) {
    for (Index i = 0; i < count; i++) room[i] = Real(x[i]);
    return room;
}

// Where to put Real's that go to `y`: there, or in `room` until `narrow` rounds them.
inline Real* target(Real* y, Real*) { return y; }

template <class Other>
inline Real* target(Other*, Real* room) {
    return room;
}

inline void narrow(const Real*, Index, Real*) {}

template <class Other>
inline void narrow(const Real* from, Index count, Other* y) {
    SIDE_BY_SIDE
    for (Index i = 0; i < count; i++) y[i] = Other(from[i]);
}

// Runs of numbers, `stride` from the start of one to the next.
struct Runs {
    const Real* x;
    Index runs, length, stride;
};

inline Runs widened_runs(const Real* x, Index runs, Index length, Index stride, Real*) {
    return {x, runs, length, stride};
}

template <class Other>
inline Runs widened_runs(const Other* x, Index runs, Index length, Index stride, Real* room) {
    for (Index r = 0; r < runs; r++) widened(x + r * stride, length, room + r * length);
    return {room, 1, runs * length, 0};
}

// --- Activations --------------------------------------------------------------------------------------------------

enum Activation : std::int64_t { NONE, SIGMOID, RELU };

// exp(v) for v up to 88 (709 in double), NaN for NaN: 2^n exp(r), |r| <= log(2) / 2, exp(r) by its Taylor series.
inline Real exponential(Real v) {
    constexpr int DIGITS = WIDE ? 52 : 23;
    constexpr Word BIAS = WIDE ? 1023 : 127;
    constexpr Real LOWEST = WIDE ? -708 : -87;
    // 1.5 * 2^DIGITS: numbers of this size are whole, so adding it rounds, and leaves n in the lowest bits.
    constexpr Real ROUNDER = WIDE ? 6755399441055744.0 : 12582912.0;
    constexpr Real LOG2_E = Real(1.44269504088896340736);
    // log(2) in two parts, the first with so few digits that its product with n is exact.
    constexpr Real LOG_2_HIGH = Real(WIDE ? 0x1.62e42feep-1 : 0x1.63p-1);
    constexpr Real LOG_2_LOW = Real(WIDE ? 0x1.a39ef35793c76p-33 : -0x1.bd0105c610ca8p-13);
    constexpr int TERMS = WIDE ? 13 : 7;
    constexpr double OVER_FACTORIAL[] = {1.0,         1.0,          1.0 / 2,       1.0 / 6,         1.0 / 24,
                                         1.0 / 120,   1.0 / 720,    1.0 / 5040,    1.0 / 40320,     1.0 / 362880,
                                         1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};

    v = v < LOWEST ? LOWEST : v;
    const Real shifted = v * LOG2_E + ROUNDER;
    const Real n = shifted - ROUNDER;
    const Real r = (v - n * LOG_2_HIGH) - n * LOG_2_LOW;
    Real series = Real(OVER_FACTORIAL[TERMS]);
#pragma GCC unroll 13
    for (int k = TERMS - 1; k >= 0; k--) series = series * r + Real(OVER_FACTORIAL[k]);
    return series * bits_of<Real>(Word((bits_of<Word>(shifted) + BIAS) << DIGITS));
}

inline Real sigmoid(Real z) {
    constexpr Real HIGHEST = WIDE ? 709 : 88;
    return 1 / (1 + exponential(-z > HIGHEST ? HIGHEST : -z));
}

inline Real sigmoid_slope(Real z) {  // by exp(-|z|), which keeps its digits where 1 - sigmoid(z) has none
    const Real e = exponential(z > 0 ? -z : z);
    return e / ((1 + e) * (1 + e));
}

// --- The numbers of each channel ------------------------------------------------------------------------------------

//     z  = (x - mean) * scale + bias               what Real cannot hold of the mean is in the bias
//     dx = (x - mean) * slope + level + scale * dz
struct Same {  // for the pixels of a plane
    Real mean_, scale_, bias_, slope_, level_, sign_;

    Real mean(Index) const { return mean_; }
    Real scale(Index) const { return scale_; }
    Real bias(Index) const { return bias_; }
    Real slope(Index) const { return slope_; }
    Real level(Index) const { return level_; }
    Real sign(Index) const { return sign_; }  // of scale: 1, -1, or 0, and NaN for NaN
};

struct Each {  // for the channels of a pixel
    const Real* first;
    Index channels;

    Real mean(Index i) const { return first[i]; }
    Real scale(Index i) const { return first[channels + i]; }
    Real bias(Index i) const { return first[2 * channels + i]; }
    Real slope(Index i) const { return first[3 * channels + i]; }
    Real level(Index i) const { return first[4 * channels + i]; }
    Real sign(Index i) const { return first[5 * channels + i]; }
};

class Table {
public:
    explicit Table(Index channels) : channels(channels), numbers(6 * channels) {}

    void set_forward(Index c, double mean, double inverse_std, double weight, double bias) {
        const double scale = inverse_std * weight;
        at(0, c) = Real(mean);
        at(1, c) = Real(scale);
        at(2, c) = Real(bias - rest(mean) * scale);
        at(5, c) = weight > 0 ? 1 : weight < 0 ? -1 : Real(weight);
    }

    // `sum` of dz, and `dweight`, over the `count` values that made mean and std.
    void set_backward(Index c, double mean, double inverse_std, double weight, double sum, double dweight, double count) {
        const double slope = -weight * inverse_std * inverse_std * dweight / count;
        at(3, c) = Real(slope);
        at(4, c) = Real(-weight * inverse_std * sum / count - rest(mean) * slope);
    }

    Same one(Index c) { return {at(0, c), at(1, c), at(2, c), at(3, c), at(4, c), at(5, c)}; }
    Each from(Index c) const { return {numbers.data() + c, channels}; }

private:
    Real& at(int what, Index c) { return numbers[what * channels + c]; }

    static double rest(double mean) { return std::isfinite(Real(mean)) ? mean - Real(mean) : 0; }

    Index channels;
    std::vector<Real> numbers;
};

// --- Loops over numbers that are next to each other ---------------------------------------------------------------

template <class Channels>
inline Real normalised(const Real* x, Index i, Channels channels) {
    return (x[i] - channels.mean(i)) * channels.scale(i) + channels.bias(i);
}

template <class Channels>
inline void activate(const Real* x, Index count, Channels channels, Activation activation, Real* __restrict y) {
    switch (activation) {
        case NONE:
            SIDE_BY_SIDE
            for (Index i = 0; i < count; i++) y[i] = normalised(x, i, channels);
            break;
        case SIGMOID:
            SIDE_BY_SIDE
            for (Index i = 0; i < count; i++) y[i] = sigmoid(normalised(x, i, channels));
            break;
        case RELU:
            SIDE_BY_SIDE
            for (Index i = 0; i < count; i++) {
                const Real z = normalised(x, i, channels);
                y[i] = z < 0 ? 0 : z;  // NaN stays
            }
            break;
    }
}

// dz, the gradient before the activation: in `room`, or where dy is.
template <class Channels>
inline const Real* before_activation(
    const Real* x, const Real* dy, Index count, Channels channels, Activation activation, Real* __restrict room) {
    switch (activation) {
        case NONE:
            return dy;
        case SIGMOID:
            SIDE_BY_SIDE
            for (Index i = 0; i < count; i++) room[i] = dy[i] * sigmoid_slope(normalised(x, i, channels));
            break;
        case RELU:
            SIDE_BY_SIDE
            for (Index i = 0; i < count; i++) room[i] = normalised(x, i, channels) <= 0 ? 0 : dy[i];  // NaN lets pass
            break;
    }
    return room;
}

// The part of dx that comes through mean and std. Where they were given there is none, not even of NaN.
template <class Channels>
inline Real through_statistics(const Real* x, Index i, Channels channels) {
    const Real part = (x[i] - channels.mean(i)) * channels.slope(i) + channels.level(i);
    return (channels.slope(i) == 0) & (channels.level(i) == 0) ? 0 : part;
}

template <class Channels>
inline void spread(const Real* x, const Real* dz, Index count, Channels channels, Real* dx) {
    SIDE_BY_SIDE
    for (Index i = 0; i < count; i++) dx[i] = through_statistics(x, i, channels) + channels.scale(i) * dz[i];
}

// --- Sums -----------------------------------------------------------------------------------------------------------

#ifdef __AVX__
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif
typedef Real Vector __attribute__((vector_size(VECTOR_BYTES)));
constexpr Index LANES = VECTOR_BYTES / sizeof(Real);

inline Vector load(const Real* from) {
    Vector v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline Vector load(const Real* from, Index at) { return load(from + at); }

inline void store(Vector v, Real* to, Index at) { std::memcpy(to + at, &v, sizeof v); }

struct Halves {  // of a vector: where each is
    Index one, two;
};

#if defined(__clang__) || __GNUC__ >= 12
typedef Real HalfVector __attribute__((vector_size(VECTOR_BYTES / 2)));

template <Index... LOWER>
inline Vector joined(HalfVector one, HalfVector two, std::integer_sequence<Index, LOWER...>) {
    return __builtin_shufflevector(one, two, LOWER..., (LOWER + LANES / 2)...);
}

template <Index... LOWER>
inline void store(Vector v, Real* to, Halves at, std::integer_sequence<Index, LOWER...>) {
    const HalfVector one = __builtin_shufflevector(v, v, LOWER...);
    const HalfVector two = __builtin_shufflevector(v, v, (LOWER + LANES / 2)...);
    std::memcpy(to + at.one, &one, sizeof one);
    std::memcpy(to + at.two, &two, sizeof two);
}

inline Vector load(const Real* from, Halves at) {
    HalfVector one, two;
    std::memcpy(&one, from + at.one, sizeof one);
    std::memcpy(&two, from + at.two, sizeof two);
    return joined(one, two, std::make_integer_sequence<Index, LANES / 2>());
}

inline void store(Vector v, Real* to, Halves at) {
    store(v, to, at, std::make_integer_sequence<Index, LANES / 2>());
}
#else
inline Vector load(const Real* from, Halves at) {
    Vector v;
    std::memcpy(&v, from + at.one, sizeof v / 2);
    std::memcpy(reinterpret_cast<char*>(&v) + sizeof v / 2, from + at.two, sizeof v / 2);
    return v;
}

inline void store(Vector v, Real* to, Halves at) {
    std::memcpy(to + at.one, &v, sizeof v / 2);
    std::memcpy(to + at.two, reinterpret_cast<char*>(&v) + sizeof v / 2, sizeof v / 2);
}
#endif

inline double total(Vector v) {
    double sum = 0;
    for (Index i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

// Lanes of two vectors, numbered from 0 to 2 * LANES - 1.
template <Index... LANE>
inline Vector picked(Vector a, Vector b) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, LANE...);
#else
    typedef std::make_signed_t<Word> Places __attribute__((vector_size(VECTOR_BYTES)));
    return __builtin_shuffle(a, b, Places{LANE...});
#endif
}

template <class Lanes>
struct Pairs;

// Two vectors of pixels next to each other, and the left and the right ones of them.
template <Index... I>
struct Pairs<std::integer_sequence<Index, I...>> {
    static Vector left(Vector a, Vector b) { return picked<(2 * I)...>(a, b); }
    static Vector right(Vector a, Vector b) { return picked<(2 * I + 1)...>(a, b); }
    static Vector first(Vector left, Vector right) { return picked<(I / 2 + I % 2 * LANES)...>(left, right); }
    static Vector last(Vector left, Vector right) {
        return picked<(LANES / 2 + I / 2 + I % 2 * LANES)...>(left, right);
    }
};

using Pair = Pairs<std::make_integer_sequence<Index, LANES>>;

// Which pixel counts, for a weight that is positive, negative, or anything. The first two are for training, where one
// NaN has made the whole channel NaN, so that it doesn't matter which counts.
enum Order { RISING, FALLING, ANY };

// Of a window's pixels the one that counts: of equal ones the first, of several NaN the last, as in ATen's max-pool.
template <class Number>  // Real, or a Vector of them
struct Winner {
    Number x, number;

    explicit Winner(Number first) : x(first), number{} {}

    template <Order ORDER>
    void challenge(Number other, Real its_number, Real sign) {
        if constexpr (ORDER == RISING) replace(other > x, other, its_number);
        if constexpr (ORDER == FALLING) replace(other < x, other, its_number);
        if constexpr (ORDER == ANY) replace((other * sign > x * sign) | (other != other), other, its_number);
    }

    template <class Condition>
    void replace(Condition condition, Number other, Real its_number) {
        x = condition ? other : x;
        number = condition ? Number{} + its_number : number;
    }
};

struct Moments {
    double count = 0, mean = 0, m2 = 0;  // m2: sum of (x - mean)^2

    // Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    void merge(const Moments& other) {
        const double sum = count + other.count, difference = other.mean - mean;
        // An infinite mean stays infinite, as that of one long sum would.
        mean = std::isfinite(difference) ? mean + difference * (other.count / sum)
                                         : (count * mean + other.count * other.mean) / sum;
        m2 += other.m2 + difference * difference * (count * other.count / sum);
        count = sum;
    }
};

// In double, one by one.
template <class Number>
Moments moments_one_by_one(const Number* x, Index runs, Index length, Index stride) {
    Moments all{double(runs * length), 0, 0};
    for (Index r = 0; r < runs; r++)
        for (Index i = 0; i < length; i++) all.mean += double(x[r * stride + i]);
    all.mean /= all.count;
    for (Index r = 0; r < runs; r++)
        for (Index i = 0; i < length; i++) {
            const double off = double(x[r * stride + i]) - all.mean;
            all.m2 += off * off;
        }
    return all;
}

// From sums of x - guess and its square, with the guess close enough: else m2 is the small difference of large numbers.
// A float's square may also vanish or become infinite. False: `found` is of no use.
inline bool from_guess(double guess, double sum, double squares, Moments& found) {
    const double correction = sum * sum / found.count;
    found.mean = guess + sum / found.count;
    found.m2 = squares - correction;
    return found.m2 >= correction && squares > 1e-30 * found.count && squares < 1e38;
}

double mean_of(Runs of) {
    const auto [x, runs, length, stride] = of;
    Vector a{}, b{};
    double rest = 0;
    for (Index r = 0; r < runs; r++) {
        const Real* run = x + r * stride;
        Index i = 0;
        for (; i + 2 * LANES <= length; i += 2 * LANES) a += load(run + i), b += load(run + i + LANES);
        for (; i < length; i++) rest += run[i];
    }
    return (total(a) + total(b) + rest) / double(runs * length);
}

bool moments_by_guess(Runs of, Real guess, Moments& found) {
    const auto [x, runs, length, stride] = of;
    Vector a{}, b{}, c{}, d{};
    double sum = 0, squares = 0;
    for (Index r = 0; r < runs; r++) {
        const Real* run = x + r * stride;
        Index i = 0;
        for (; i + 2 * LANES <= length; i += 2 * LANES) {
            const Vector u = load(run + i) - guess, v = load(run + i + LANES) - guess;
            a += u, b += v, c += u * u, d += v * v;
        }
        for (; i < length; i++) {
            const double off = double(run[i]) - guess;
            sum += off, squares += off * off;
        }
    }
    found.count = double(runs * length);
    return from_guess(guess, total(a) + total(b) + sum, total(c) + total(d) + squares, found);
}

// `so_far`: of this channel's numbers before these, whose mean is a good guess at most times. Then one pass will do.
Moments moments_of(Runs of, const Moments& so_far) {
    Moments found;
    if (so_far.count && moments_by_guess(of, Real(so_far.mean), found)) return found;
    if (moments_by_guess(of, Real(mean_of(of)), found)) return found;
    return moments_one_by_one(of.x, of.runs, of.length, of.stride);
}

struct Sums {
    double dz = 0, dz_x = 0;  // of dz, and of dz (x - mean)

    void merge(const Sums& other) { dz += other.dz, dz_x += other.dz_x; }
};

// Sums over the pixels of planes. Vectors go on from one small plane to the next, and into doubles every TILE.
class RunningSums {
public:
    void add(const Real* x, const Real* dz, Index count, Real mean) {
        Index i = 0;
        for (; i + 2 * LANES <= count; i += 2 * LANES) {
            const Vector u = load(dz + i), v = load(dz + i + LANES);
            a += u, b += v;
            c += u * (load(x + i) - mean), d += v * (load(x + i + LANES) - mean);
        }
        for (; i < count; i++) sums.dz += dz[i], sums.dz_x += double(dz[i]) * (x[i] - mean);
        pending += count;
        if (pending >= TILE) settle();
    }

    Sums result() {
        settle();
        return sums;
    }

private:
    void settle() {
        sums.dz += total(a + b), sums.dz_x += total(c) + total(d);
        a = b = c = d = Vector{};
        pending = 0;
    }

    Vector a{}, b{}, c{}, d{};
    Index pending = 0;
    Sums sums;
};

// --- The four steps, on planes and on rows --------------------------------------------------------------------------

struct Plan {  // what does not change from call to call; `_Plan` of cpu_fused.py
    Index images, channels, height, width, in_rows, pool, activation, training, threads;
};

struct Part {  // what a thread works on
    Index channel, channels_end, image, images_end;
};

enum Stage { INPUT, GRADIENT, OUTPUT, CHOSEN, WITHIN, WHICH, STAGES };

// Of a thread: a tile of numbers for every stage of the work.
class Room {
public:
    explicit Room(Index tile) : tile(tile), numbers(new Real[STAGES * tile]) {}

    Real* at(Stage stage) { return numbers.get() + stage * tile; }

private:
    Index tile;
    std::unique_ptr<Real[]> numbers;
};

class Planes {
public:
    explicit Planes(const Plan& plan)
        : plan(plan), pixels(plan.height * plan.width), pooled_height(plan.height / 2), pooled_width(plan.width / 2),
          output_pixels(plan.pool ? pooled_height * pooled_width : pixels),
          band(std::max<Index>(1, TILE / std::max<Index>(1, 2 * plan.width))) {}

    Index room() const { return std::max(TILE, 2 * plan.width); }

    Index channels_at_a_time() const { return 1; }

    void moments(const Stored* x, Part part, Moments* found, Room& room) const {
        const Index length = std::min(pixels, TILE), images = TILE / length;
        for (Index n = part.image; n < part.images_end; n += images) {
            const Index runs = std::min(images, part.images_end - n);
            for (Index c = part.channel; c < part.channels_end; c++)
                for (Index start = 0; start < pixels; start += TILE) {
                    const Index count = std::min(length, pixels - start);
                    const Stored* tile = x + (n * plan.channels + c) * pixels + start;
                    const Index stride = plan.channels * pixels;
                    found[c].merge(moments_of(widened_runs(tile, runs, count, stride, room.at(INPUT)), found[c]));
                }
        }
    }

    void apply(const Stored* x, Table& table, Part part, Stored* y, Room& room) const {
        const auto activation = Activation(plan.activation);
        for_each_tile(part, [&](Index c, Index in, Index in_count, Index out, Index out_count) {
            const Same channel = table.one(c);
            const Real* seen = widened(x + in, in_count, room.at(INPUT));
            if (plan.pool) seen = choose<false>(seen, out_count, channel.sign_, room, nullptr);
            Real* made = target(y + out, room.at(OUTPUT));
            activate(seen, out_count, channel, activation, made);
            narrow(made, out_count, y + out);
        });
    }

    void sums(const Stored* x, const Stored* dy, Table& table, Part part, Sums* found, Real* notes, Room& room) const {
        const auto activation = Activation(plan.activation);
        std::vector<RunningSums> running(part.channels_end - part.channel);
        for_each_tile(part, [&](Index c, Index in, Index in_count, Index out, Index out_count) {
            const Same channel = table.one(c);
            const Real* seen = widened(x + in, in_count, room.at(INPUT));
            Real* note = notes ? notes + in : room.at(WITHIN);
            if (plan.pool) seen = choose<true>(seen, out_count, channel.sign_, room, note + out_count);
            const Real* dz = widened(dy + out, out_count, room.at(GRADIENT));
            dz = before_activation(seen, dz, out_count, channel, activation, note);
            running[c - part.channel].add(seen, dz, out_count, channel.mean_);
        });
        for (Index c = part.channel; c < part.channels_end; c++) found[c].merge(running[c - part.channel].result());
    }

    void spread_back(const Stored* x, const Stored* dy, Table& table, Part part, Stored* dx, const Real* notes, Room& room) const {
        for_each_tile(part, [&](Index c, Index in, Index in_count, Index out, Index out_count) {
            const Same channel = table.one(c);
            const Real* pixel = widened(x + in, in_count, room.at(INPUT));
            const Real* dz = plan.activation == NONE ? widened(dy + out, out_count, room.at(GRADIENT)) : notes + in;
            Real* made = target(dx + in, room.at(OUTPUT));
            if (plan.pool && out_count == 0) {  // an odd last row
                for (Index i = 0; i < in_count; i++) made[i] = through_statistics(pixel, i, channel);
            } else if (plan.pool) {  // what is noted has to be read before it becomes dx
                Real *gradient = room.at(WITHIN), *which = room.at(WHICH);
                SIDE_BY_SIDE
                for (Index k = 0; k < out_count; k++) gradient[k] = channel.scale_ * dz[k];
                std::copy_n(notes + in + out_count, out_count, which);
                spread_windows(pixel, gradient, which, out_count, channel, made);
            } else {
                spread(pixel, dz, in_count, channel, made);
            }
            narrow(made, in_count, dx + in);
        });
    }

private:
    // Calls body(channel, input's start and size, output's start and size) for pieces of about a TILE: with a pool,
    // pairs of whole rows. An odd last row is a piece without output.
    template <class Body>
    void for_each_tile(Part part, Body body) const {
        for (Index n = part.image; n < part.images_end; n++)
            for (Index c = part.channel; c < part.channels_end; c++) {
                const Index plane = n * plan.channels + c;
                const Index in = plane * pixels, out = plane * output_pixels;
                if (!plan.pool) {
                    for (Index start = 0; start < pixels; start += TILE) {
                        const Index count = std::min(TILE, pixels - start);
                        body(c, in + start, count, out + start, count);
                    }
                    continue;
                }
                for (Index i = 0; i < pooled_height; i += band) {
                    const Index pairs = std::min(band, pooled_height - i);
                    body(c, in + 2 * i * plan.width, 2 * pairs * plan.width, out + i * pooled_width, pairs * pooled_width);
                }
                if (plan.height % 2) body(c, in + 2 * pooled_height * plan.width, plan.width, out, 0);
            }
    }

    // The pixel that counts of each of `windows` windows.
    template <bool NUMBERED>
    const Real* choose(const Real* x, Index windows, Real sign, Room& room, Real* which) const {
        if (plan.training && sign > 0) return choose<NUMBERED, RISING>(x, windows, sign, room, which);
        if (plan.training && sign < 0) return choose<NUMBERED, FALLING>(x, windows, sign, room, which);
        return choose<NUMBERED, ANY>(x, windows, sign, room, which);
    }

    // NUMBERED: also its number, 0 to 3 in the order of rows.
    template <bool NUMBERED, Order ORDER>
    const Real* choose(const Real* x, Index windows, Real sign, Room& room, Real* which) const {
        Real* chosen = room.at(CHOSEN);
        if (plan.width >= LANES) {
            choose_in_vectors<NUMBERED, ORDER>(x, windows, sign, chosen, which);
            return chosen;
        }
        for (Index start = 0; start < windows; start += pooled_width, x += 2 * plan.width) {
            const Real* below = x + plan.width;
            SIDE_BY_SIDE
            for (Index j = 0; j < pooled_width; j++) {
                Winner<Real> winner(x[2 * j]);
                winner.challenge<ORDER>(x[2 * j + 1], 1, sign);
                winner.challenge<ORDER>(below[2 * j], 2, sign);
                winner.challenge<ORDER>(below[2 * j + 1], 3, sign);
                chosen[start + j] = winner.x;
                if constexpr (NUMBERED) which[start + j] = winner.number;
            }
        }
        return chosen;
    }

    template <bool NUMBERED, Order ORDER>
    void choose_in_vectors(const Real* x, Index windows, Real sign, Real* chosen, Real* which) const {
        for_each_vector(windows, [&](auto window, Halves at) {
            const Vector above_one = load(x + at.one), below_one = load(x + at.one + plan.width);
            const Vector above_two = load(x + at.two), below_two = load(x + at.two + plan.width);
            Winner<Vector> winner(Pair::left(above_one, above_two));
            winner.challenge<ORDER>(Pair::right(above_one, above_two), 1, sign);
            winner.challenge<ORDER>(Pair::left(below_one, below_two), 2, sign);
            winner.challenge<ORDER>(Pair::right(below_one, below_two), 3, sign);
            store(winner.x, chosen, window);
            if constexpr (NUMBERED) store(winner.number, which, window);
        });
    }

    // body(window, at): the windows of two vectors of pixels, `at` and below, make one vector. LeNet's rows are short, and
    // a loop for each would take longer to begin and to end than to run.
    template <class Body>
    void for_each_vector(Index windows, Body body) const {
        const Index columns = 2 * pooled_width;
        Index row = 0, column = 0;
        const auto next_row = [&] { column = 0, row += 2 * plan.width; };
        if (plan.width % LANES == 0) {
            const auto next = [&] {
                const Index here = row + column;
                column += LANES;
                if (column == columns) next_row();
                return here;
            };
            for (Index k = 0; k < windows; k += LANES) {
                const Index one = next();  // and where half a vector is left, it is taken for both halves
                body(k, Halves{one, k + LANES / 2 < windows ? next() : one});
            }
            return;
        }
        // Otherwise the last vector of a row covers some windows of the one before once more.
        Index window = 0;
        const auto next = [&](Index& its_window, Index& its_place) {
            const Index start = std::min(column, columns - LANES);
            its_place = row + start, its_window = window + start / 2;
            column += LANES;
            if (column >= columns) next_row(), window += pooled_width;
        };
        while (window < windows) {
            Halves pair, at;
            next(pair.one, at.one);
            pair.two = pair.one, at.two = at.one;
            if (window < windows) next(pair.two, at.two);
            body(pair, at);
        }
    }

    // Pairs of rows, and their windows' gradients and numbers.
    void spread_windows(const Real* x, const Real* gradient, const Real* which, Index windows, Same channel, Real* dx) const {
        if (plan.width >= LANES) return spread_in_vectors(x, gradient, which, windows, channel, dx);
        for (Index start = 0; start < windows; start += pooled_width) {
            for (Index down = 0; down < 2; down++, x += plan.width, dx += plan.width) {
                SIDE_BY_SIDE
                for (Index j = 0; j < pooled_width; j++)
                    for (Index right = 0; right < 2; right++) {
                        const Real routed = which[start + j] == Real(2 * down + right) ? gradient[start + j] : 0;
                        dx[2 * j + right] = through_statistics(x, 2 * j + right, channel) + routed;
                    }
                if (plan.width % 2) dx[plan.width - 1] = through_statistics(x, plan.width - 1, channel);
            }
        }
    }

    void spread_in_vectors(
        const Real* x, const Real* gradient, const Real* which, Index windows, Same channel, Real* dx) const {
        const bool through = channel.slope_ != 0 || channel.level_ != 0;
        const auto put = [&](Vector routed, Index at) {
            if (through) routed += (load(x + at) - channel.mean_) * channel.slope_ + channel.level_;
            store(routed, dx, at);
        };
        for_each_vector(windows, [&](auto window, Halves at) {
            const Vector all = load(gradient, window), number = load(which, window), none{};
            const Vector left = number == 0 ? all : none, right = number == 1 ? all : none;
            const Vector left_below = number == 2 ? all : none, right_below = number == 3 ? all : none;
            put(Pair::last(left, right), at.two);
            put(Pair::last(left_below, right_below), at.two + plan.width);
            put(Pair::first(left, right), at.one);
            put(Pair::first(left_below, right_below), at.one + plan.width);
        });
        if (plan.width % 2)
            for (Index i = plan.width - 1; i < windows / pooled_width * 2 * plan.width; i += plan.width)
                dx[i] = through_statistics(x, i, channel);
    }

    const Plan& plan;
    Index pixels, pooled_height, pooled_width, output_pixels, band;
};

class Rows {
public:
    explicit Rows(const Plan& plan)
        : plan(plan), pixels(plan.height * plan.width), pooled_height(plan.height / 2), pooled_width(plan.width / 2),
          output_pixels(plan.pool ? pooled_height * pooled_width : pixels) {}

    Index room() const { return std::max(TILE, plan.channels); }

    Index channels_at_a_time() const { return plan.channels; }

    void moments(const Stored* x, Part part, Moments* found, Room&) const {
        const Index count = part.channels_end - part.channel;
        std::vector<Real> numbers(7 * count);
        Real *__restrict guess = numbers.data(), *__restrict sum = guess + count, *__restrict squares = sum + count;
        Real* room = squares + count;
        for (Index r = part.image * pixels, end = part.images_end * pixels; r < end; r += ROWS) {
            const Index rows = std::min(ROWS, end - r);
            const Stored* top = x + r * plan.channels + part.channel;
            if (r == part.image * pixels) {
                guess_from(top, std::min<Index>(rows, 16), count, guess, room);
            } else {
                for (Index i = 0; i < count; i++) guess[i] = Real(found[part.channel + i].mean);
            }
            std::fill(sum, sum + 2 * count, Real(0));
            Index done = 0;
            for (; done + 4 <= rows; done += 4) {
                const Real* row[4];
                for (Index k = 0; k < 4; k++) row[k] = widened(top + (done + k) * plan.channels, count, room + k * count);
                SIDE_BY_SIDE
                for (Index i = 0; i < count; i++) {
                    const Real a = row[0][i] - guess[i], b = row[1][i] - guess[i];
                    const Real c = row[2][i] - guess[i], d = row[3][i] - guess[i];
                    sum[i] += (a + b) + (c + d), squares[i] += (a * a + b * b) + (c * c + d * d);
                }
            }
            for (; done < rows; done++) {
                const Real* row = widened(top + done * plan.channels, count, room);
                SIDE_BY_SIDE
                for (Index i = 0; i < count; i++) {
                    const Real off = row[i] - guess[i];
                    sum[i] += off, squares[i] += off * off;
                }
            }
            SIDE_BY_SIDE
            for (Index i = 0; i < count; i++) {
                Moments column{double(rows), 0, 0};
                if (!from_guess(guess[i], sum[i], squares[i], column))
                    column = moments_one_by_one(top + i, rows, 1, plan.channels);
                found[part.channel + i].merge(column);
            }
        }
    }

    void apply(const Stored* x, Table& table, Part part, Stored* y, Room& room) const {
        const auto activation = Activation(plan.activation);
        const Each each = table.from(part.channel);
        const Index count = part.channels_end - part.channel;
        for_each_pixel(part, [&](Index in, Index out, bool whole) {
            if (!whole) return;
            const Real* seen = widened(x + in, count, room.at(INPUT));
            if (plan.pool) seen = choose(x + in, count, each, room);
            Real* made = target(y + out, room.at(OUTPUT));
            activate(seen, count, each, activation, made);
            narrow(made, count, y + out);
        });
    }

    void sums(const Stored* x, const Stored* dy, Table& table, Part part, Sums* found, Real* notes, Room& room) const {
        const auto activation = Activation(plan.activation);
        const Each each = table.from(part.channel);
        const Index count = part.channels_end - part.channel;
        std::vector<Real> of_dz(count), of_dz_x(count);
        Real *__restrict a = of_dz.data(), *__restrict b = of_dz_x.data();
        Index pending = 0;
        const auto settle = [&] {
            for (Index i = 0; i < count; i++) found[part.channel + i].merge({a[i], b[i]});
            std::fill(a, a + count, Real(0));
            std::fill(b, b + count, Real(0));
            pending = 0;
        };
        for_each_pixel(part, [&](Index in, Index out, bool whole) {
            if (!whole) return;
            const Real* seen = widened(x + in, count, room.at(INPUT));
            if (plan.pool) seen = choose(x + in, count, each, room);
            Real* note = notes ? notes + in : room.at(WITHIN);
            if (plan.pool && notes) std::copy_n(room.at(WHICH), count, note + plan.channels);
            const Real* dz = widened(dy + out, count, room.at(GRADIENT));
            dz = before_activation(seen, dz, count, each, activation, note);
            SIDE_BY_SIDE
            for (Index i = 0; i < count; i++) a[i] += dz[i], b[i] += dz[i] * (seen[i] - each.mean(i));
            if (++pending == ROWS) settle();
        });
        settle();
    }

    void spread_back(const Stored* x, const Stored* dy, Table& table, Part part, Stored* dx, const Real* notes, Room& room) const {
        const Each each = table.from(part.channel);
        const Index count = part.channels_end - part.channel;
        for_each_pixel(part, [&](Index in, Index out, bool whole) {
            const Real* dz = notes + in;
            if (whole && plan.activation == NONE) dz = widened(dy + out, count, room.at(GRADIENT));
            if (plan.pool) {
                if (whole) {  // before what is noted here becomes dx
                    std::copy_n(dz, count, room.at(WITHIN));
                    std::copy_n(notes + in + plan.channels, count, room.at(WHICH));
                }
                spread_window(x, whole, in, count, each, dx, room);
            } else {
                const Real* pixel = widened(x + in, count, room.at(INPUT));
                Real* made = target(dx + in, room.at(OUTPUT));
                spread(pixel, dz, count, each, made);
                narrow(made, count, dx + in);
            }
        });
    }

private:
    static constexpr Index ROWS = 256;  // before a sum of Real's goes on in double

    void guess_from(const Stored* top, Index rows, Index count, Real* __restrict guess, Real* room) const {
        std::fill(guess, guess + count, Real(0));
        for (Index r = 0; r < rows; r++) {
            const Real* row = widened(top + r * plan.channels, count, room);
            SIDE_BY_SIDE
            for (Index i = 0; i < count; i++) guess[i] += row[i];
        }
        SIDE_BY_SIDE
        for (Index i = 0; i < count; i++) guess[i] /= Real(rows);
    }

    // Calls body(input's start, output's start, whole) for each pixel of the output. With a pool, the input's start is
    // a window's first pixel, and where height or width are odd there are windows that are not whole.
    template <class Body>
    void for_each_pixel(Part part, Body body) const {
        const Index channels = plan.channels;
        if (!plan.pool) {
            for (Index r = part.image * pixels; r < part.images_end * pixels; r++)
                body(r * channels + part.channel, r * channels + part.channel, true);
            return;
        }
        for (Index n = part.image; n < part.images_end; n++)
            for (Index i = 0; 2 * i < plan.height; i++)
                for (Index j = 0; 2 * j < plan.width; j++) {
                    const Index in = n * pixels + 2 * i * plan.width + 2 * j;
                    const Index out = n * output_pixels + i * pooled_width + j;
                    body(in * channels + part.channel, out * channels + part.channel,
                         i < pooled_height && j < pooled_width);
                }
    }

    // The pixel that counts of the window at x, for each channel, and its number.
    const Real* choose(const Stored* x, Index count, Each each, Room& room) const {
        const Index places[] = {0, 1, plan.width, plan.width + 1};
        Real* __restrict chosen = room.at(CHOSEN);
        Real* __restrict which = room.at(WHICH);
        SIDE_BY_SIDE
        for (Index i = 0; i < count; i++) chosen[i] = Real(x[i]), which[i] = 0;
        for (int number = 1; number < 4; number++) {
            const Real* other = widened(x + places[number] * plan.channels, count, room.at(INPUT));
            SIDE_BY_SIDE
            for (Index i = 0; i < count; i++) {
                Winner<Real> winner(chosen[i]);
                winner.number = which[i];
                winner.challenge<ANY>(other[i], Real(number), each.sign(i));
                chosen[i] = winner.x, which[i] = winner.number;
            }
        }
        return chosen;
    }

    // dx at the pixels, as far as they are in the image, of the window that begins at `in`.
    void spread_window(const Stored* x, bool whole, Index in, Index count, Each each, Stored* dx, Room& room) const {
        const Index pixel = in / plan.channels % pixels, i = pixel / plan.width, j = pixel % plan.width;
        const Real *dz = room.at(WITHIN), *which = room.at(WHICH);
        for (int number = 0; number < 4; number++) {
            const Index down = number / 2, right = number % 2;
            if (i + down >= plan.height || j + right >= plan.width) continue;
            const Index at = in + (down * plan.width + right) * plan.channels;
            const Real* seen = widened(x + at, count, room.at(INPUT));
            Real* made = target(dx + at, room.at(OUTPUT));
            SIDE_BY_SIDE
            for (Index k = 0; k < count; k++) {
                const Real routed = whole && which[k] == number ? each.scale(k) * dz[k] : 0;
                made[k] = through_statistics(seen, k, each) + routed;
            }
            narrow(made, count, dx + at);
        }
    }

    const Plan& plan;
    Index pixels, pooled_height, pooled_width, output_pixels;
};

// --- Threads --------------------------------------------------------------------------------------------------------

struct Team {
#ifdef _OPENMP
    int thread = omp_get_thread_num(), threads = omp_get_num_threads();
#else
    int thread = 0, threads = 1;
#endif

    Index begin(Index all) const { return all * thread / threads; }
    Index end(Index all) const { return all * (thread + 1) / threads; }
};

// collect(part, number), for every part of the tensor; finish(channel, its parts) when all numbers of a channel are
// there; then use(part). A thread takes all channels of some images, in the order of memory, which is faster than one
// channel after the other although that would still be in the cache for the second step. Where there are few images it
// takes some channels of all. The same number of threads does the same sums in the same order.
template <class Layout, class Collect, class Finish, class Use>
void in_two_steps(const Layout& layout, const Plan& plan, Collect collect, Finish finish, Use use) {
#pragma omp parallel num_threads(int(plan.threads))
    {
        const Team team;
        Room room(layout.room());
        if (plan.images < 4 * plan.threads) {
            const Index end = team.end(plan.channels), at_a_time = layout.channels_at_a_time();
            for (Index c = team.begin(plan.channels); c < end; c += at_a_time) {
                const Part part{c, std::min(end, c + at_a_time), 0, plan.images};
                collect(part, 0, room);
                for (Index k = part.channel; k < part.channels_end; k++) finish(k, 1);
                use(part, room);
            }
        } else {
            const Part part{0, plan.channels, team.begin(plan.images), team.end(plan.images)};
            collect(part, team.thread, room);
#pragma omp barrier
            for (Index k = team.begin(plan.channels); k < team.end(plan.channels); k++) finish(k, team.threads);
#pragma omp barrier
            use(part, room);
        }
    }
}

template <class Partial>
Partial merged(const std::vector<Partial>& partials, Index c, Index parts, Index channels) {
    Partial all = partials[c];
    for (Index part = 1; part < parts; part++) all.merge(partials[part * channels + c]);
    return all;
}

inline double given(const Real* numbers, Index c, double otherwise) { return numbers ? double(numbers[c]) : otherwise; }

template <class Layout>
void forward(const Plan& plan, const Stored* x, Stored* y, double* saved, const Real* weight, const Real* bias,
             Real* running_mean, Real* running_var, double momentum, double eps) {
    const Layout layout(plan);
    Table table(plan.channels);
    std::vector<Moments> partials(plan.training ? plan.threads * plan.channels : 0);
    const auto collect = [&](Part part, Index number, Room& room) {
        if (plan.training) layout.moments(x, part, partials.data() + number * plan.channels, room);
    };
    const auto finish = [&](Index c, Index parts) {
        double mean, var;
        if (plan.training) {
            const Moments all = merged(partials, c, parts, plan.channels);
            mean = all.mean, var = all.m2 / all.count;
            if (running_mean) {
                running_mean[c] = Real((1 - momentum) * running_mean[c] + momentum * mean);
                running_var[c] = Real((1 - momentum) * running_var[c] + momentum * (all.m2 / (all.count - 1)));
            }
        } else {
            mean = running_mean[c], var = running_var[c];
        }
        const double inverse_std = 1 / std::sqrt(var + eps);
        saved[c] = mean, saved[plan.channels + c] = inverse_std;
        table.set_forward(c, mean, inverse_std, given(weight, c, 1), given(bias, c, 0));
    };
    const auto use = [&](Part part, Room& room) { layout.apply(x, table, part, y, room); };
    in_two_steps(layout, plan, collect, finish, use);
}

inline Real* notepad(Real* dx, Index, std::unique_ptr<Real[]>&) { return dx; }

template <class Other>
inline Real* notepad(Other* dx, Index count, std::unique_ptr<Real[]>& wider) {
    if (dx) wider.reset(new Real[count]);
    return wider.get();
}

template <class Layout>
void backward(const Plan& plan, const Stored* x, const Stored* dy, Stored* dx, const double* saved, const Real* weight,
              const Real* bias, Real* dweight, Real* dbias) {
    const Layout layout(plan);
    Table table(plan.channels);
    const double *mean = saved, *inverse_std = saved + plan.channels;
    for (Index c = 0; c < plan.channels; c++)
        table.set_forward(c, mean[c], inverse_std[c], given(weight, c, 1), given(bias, c, 0));
    std::vector<Sums> partials(plan.threads * plan.channels);
    // dz, and which pixel of a window it goes to, wait for the second step in the memory where dx will be.
    std::unique_ptr<Real[]> wider;
    Real* const notes = notepad(dx, plan.images * plan.channels * plan.height * plan.width, wider);
    const auto collect = [&](Part part, Index number, Room& room) {
        layout.sums(x, dy, table, part, partials.data() + number * plan.channels, notes, room);
    };
    const auto finish = [&](Index c, Index parts) {
        const Sums all = merged(partials, c, parts, plan.channels);
        const double rest = std::isfinite(Real(mean[c])) ? mean[c] - Real(mean[c]) : 0;
        const double of_weight = (all.dz_x - rest * all.dz) * inverse_std[c];
        dbias[c] = Real(all.dz), dweight[c] = Real(of_weight);
        if (!plan.training) return;
        const double count = double(plan.images * plan.height * plan.width);
        table.set_backward(c, mean[c], inverse_std[c], given(weight, c, 1), all.dz, of_weight, count);
    };
    const auto use = [&](Part part, Room& room) {
        if (dx) layout.spread_back(x, dy, table, part, dx, notes, room);
    };
    in_two_steps(layout, plan, collect, finish, use);
}

}  // namespace

// --- For Python -----------------------------------------------------------------------------------------------------

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

// x, y: as `plan` says. saved: mean and 1 / std, (2, C). weight, bias, running_mean, running_var: (C,) or null.
void batch_norm_forward(const Plan* plan, const Stored* x, Stored* y, double* saved, const Real* weight,
                        const Real* bias, Real* running_mean, Real* running_var, double momentum, double eps) {
    (plan->in_rows ? forward<Rows> : forward<Planes>)(
        *plan, x, y, saved, weight, bias, running_mean, running_var, momentum, eps);
}

// dx: as x, or null where nobody asks for it. dweight, dbias: (C,).
void batch_norm_backward(const Plan* plan, const Stored* x, const Stored* dy, Stored* dx, const double* saved,
                         const Real* weight, const Real* bias, Real* dweight, Real* dbias) {
    (plan->in_rows ? backward<Rows> : backward<Planes>)(*plan, x, dy, dx, saved, weight, bias, dweight, dbias);
}
}
