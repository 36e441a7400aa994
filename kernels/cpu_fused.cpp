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

// --- Vectors --------------------------------------------------------------------------------------------------------

#ifdef __AVX__
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif
typedef Real Vector __attribute__((vector_size(VECTOR_BYTES)));
typedef Real HalfVector __attribute__((vector_size(VECTOR_BYTES / 2)));
constexpr Index LANES = VECTOR_BYTES / sizeof(Real);

template <class Number>  // Real, Vector or HalfVector
struct Words;
template <>
struct Words<Real> {
    typedef Word type;
};
template <>
struct Words<Vector> {
    typedef Word type __attribute__((vector_size(VECTOR_BYTES)));
};
template <>
struct Words<HalfVector> {
    typedef Word type __attribute__((vector_size(VECTOR_BYTES / 2)));
};

template <class Number>
inline Number get(const Real* from) {
    Number number;
    std::memcpy(&number, from, sizeof number);
    return number;
}

template <class Number>
inline void put(Number number, Real* to) {
    std::memcpy(to, &number, sizeof number);
}

// body(Number{}, i) for `count` numbers that are next to each other: as vectors, and what is left as shorter ones.
template <class Body>
inline void for_numbers(Index count, Body body) {
    Index i = 0;
    for (; i + LANES <= count; i += LANES) body(Vector{}, i);
    if (i + LANES / 2 <= count) body(HalfVector{}, i), i += LANES / 2;
    for (; i < count; i++) body(Real{}, i);
}

inline Vector load(const Real* from, Index at) { return get<Vector>(from + at); }

inline void store(Vector v, Real* to, Index at) { put(v, to + at); }

struct Halves {  // of a vector: where each is
    Index one, two;
};

#if defined(__clang__) || __GNUC__ >= 12
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

// Of pixels next to each other: 0 and 1 are a pair, 2 and 3, and so on.
template <Index... I>
struct Pairs<std::integer_sequence<Index, I...>> {
    static constexpr Vector NUMBER{(I % 2)...};

    static Vector left(Vector a, Vector b) { return picked<(2 * I)...>(a, b); }
    static Vector right(Vector a, Vector b) { return picked<(2 * I + 1)...>(a, b); }
    static Vector doubled(Vector v) { return picked<(I / 2)...>(v, v); }

    static Vector swapped(Vector v) { return picked<(I ^ 1)...>(v, v); }
};

using Pair = Pairs<std::make_integer_sequence<Index, LANES>>;

// --- Activations --------------------------------------------------------------------------------------------------

enum Activation : std::int64_t { NONE, SIGMOID, RELU };

// exp(z) is a number, and so is 1 / exp(z), up to this z.
constexpr Real LARGEST_POWER = WIDE ? 708 : 87;

// exp(v) for v up to LARGEST_POWER, NaN for NaN: 2^n exp(r), |r| <= log(2) / 2, exp(r) by its Taylor series.
template <class Number>
inline Number exponential(Number v) {
    using Bits = typename Words<Number>::type;
    constexpr int DIGITS = WIDE ? 52 : 23;
    // 1.5 * 2^DIGITS: numbers of this size are whole, so adding it rounds. The exponent's bias more leaves the bits of 2^n
    // in the lowest bits.
    constexpr Real ROUNDER = WIDE ? 6755399441055744.0 + 1023 : 12582912.0 + 127;
    constexpr Real LOG2_E = Real(1.44269504088896340736);
    // log(2) in two parts, the first with so few digits that its product with n is exact.
    constexpr Real LOG_2_HIGH = Real(WIDE ? 0x1.62e42feep-1 : 0x1.63p-1);
    constexpr Real LOG_2_LOW = Real(WIDE ? 0x1.a39ef35793c76p-33 : -0x1.bd0105c610ca8p-13);
    constexpr int TERMS = WIDE ? 13 : 7;
    constexpr double OVER_FACTORIAL[] = {1.0,         1.0,          1.0 / 2,       1.0 / 6,         1.0 / 24,
                                         1.0 / 120,   1.0 / 720,    1.0 / 5040,    1.0 / 40320,     1.0 / 362880,
                                         1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};

    const Number shifted = v * LOG2_E + ROUNDER;
    const Number n = shifted - ROUNDER;
    const Number r = (v - n * LOG_2_HIGH) - n * LOG_2_LOW;
    Number series = Number{} + Real(OVER_FACTORIAL[TERMS]);
#pragma GCC unroll 13
    for (int k = TERMS - 1; k >= 0; k--) series = series * r + Real(OVER_FACTORIAL[k]);
    return series * bits_of<Number>(bits_of<Bits>(shifted) << DIGITS);
}

template <class Number>
inline Number sigmoid(Number z) {
    const Number most = Number{} + LARGEST_POWER;
    z = z > most ? most : z;
    z = z < -most ? -most : z;
    return 1 / (1 + exponential(-z));
}

template <class Number>
inline Number sigmoid_slope(Number z) {  // by exp(-|z|), which keeps its digits where 1 - sigmoid(z) has none
    const Number most = Number{} + LARGEST_POWER, size = z > -z ? z : -z;
    const Number e = exponential(-(size > most ? most : size));
    return e / ((1 + e) * (1 + e));
}

// --- The numbers of each channel ------------------------------------------------------------------------------------

//     z  = (x - mean) * scale + bias               what Real cannot hold of the mean is in the bias
//     dx = (x - mean) * slope + level + scale * dz
template <class Number>
struct Channel {
    Number mean, scale, bias, slope, level;

    Number normalised(Number x) const { return (x - mean) * scale + bias; }

    // The part of dx that comes through mean and std. Where they were given there is none, not even of NaN.
    Number through_statistics(Number x) const {
        const Number part = (x - mean) * slope + level;
        return ((slope == Number{}) & (level == Number{})) ? Number{} : part;
    }
};

struct Same {  // for the pixels of a plane
    Channel<Real> all;
    Real sign;  // of scale: 1, -1, or 0, and NaN for NaN

    template <class Number>
    Channel<Number> at(Index) const {
        return {Number{} + all.mean, Number{} + all.scale, Number{} + all.bias, Number{} + all.slope, Number{} + all.level};
    }
};

struct Each {  // for the channels of a pixel
    const Real* first;
    Index channels;

    template <class Number>
    Channel<Number> at(Index i) const {
        return {get<Number>(first + i), get<Number>(first + channels + i), get<Number>(first + 2 * channels + i),
                get<Number>(first + 3 * channels + i), get<Number>(first + 4 * channels + i)};
    }

    Real sign(Index i) const { return first[5 * channels + i]; }
};

class Table {
public:
    Table(Index channels, const Real* weight, const Real* bias)
        : channels(channels), weight(weight), bias(bias), numbers(6 * channels) {
        for (Index c = 0; c < channels; c++) at(5, c) = scale(c) > 0 ? 1 : scale(c) < 0 ? -1 : Real(scale(c));
    }

    void set_forward(Index c, double mean, double inverse_std) {
        at(0, c) = Real(mean);
        at(1, c) = Real(inverse_std * scale(c));
        at(2, c) = Real((bias ? bias[c] : 0.0) - rest(mean) * inverse_std * scale(c));
    }

    // From the sums over the `count` values that made mean and std.
    void set_backward(Index c, double mean, double inverse_std, double dbias, double dweight, double count) {
        const double slope = -scale(c) * inverse_std * inverse_std * dweight / count;
        at(3, c) = Real(slope);
        at(4, c) = Real(-scale(c) * inverse_std * dbias / count - rest(mean) * slope);
    }

    Same one(Index c) { return {{at(0, c), at(1, c), at(2, c), at(3, c), at(4, c)}, at(5, c)}; }
    Each from(Index c) const { return {numbers.data() + c, channels}; }

    // What Real cannot hold of a mean.
    static double rest(double mean) { return std::isfinite(Real(mean)) ? mean - Real(mean) : 0; }

private:
    double scale(Index c) const { return weight ? double(weight[c]) : 1; }

    Real& at(int what, Index c) { return numbers[what * channels + c]; }

    Index channels;
    const Real *weight, *bias;
    std::vector<Real> numbers;
};

// --- Loops over numbers that are next to each other ---------------------------------------------------------------

template <class Channels>
inline void activate(const Real* x, Index count, Channels channels, Activation activation, Real* y) {
    const auto with = [&](auto activated) {
        for_numbers(count, [&](auto kind, Index i) {
            using Number = decltype(kind);
            put(activated(channels.template at<Number>(i).normalised(get<Number>(x + i))), y + i);
        });
    };
    if (activation == NONE) with([](auto z) { return z; });
    if (activation == SIGMOID) with([](auto z) { return sigmoid(z); });
    if (activation == RELU) with([](auto z) { return z < decltype(z){} ? decltype(z){} : z; });  // NaN stays
}

// dz, the gradient before the activation: in `room`, or where dy is.
template <class Channels>
inline const Real* before_activation(
    const Real* x, const Real* dy, Index count, Channels channels, Activation activation, Real* room) {
    const auto with = [&](auto times_slope) {
        for_numbers(count, [&](auto kind, Index i) {
            using Number = decltype(kind);
            const Number z = channels.template at<Number>(i).normalised(get<Number>(x + i));
            put(times_slope(get<Number>(dy + i), z), room + i);
        });
    };
    if (activation == NONE) return dy;
    if (activation == SIGMOID) with([](auto dy, auto z) { return dy * sigmoid_slope(z); });
    if (activation == RELU) with([](auto dy, auto z) { return z <= decltype(z){} ? decltype(z){} : dy; });  // NaN lets pass
    return room;
}

template <class Channels>
inline void spread(const Real* x, const Real* dz, Index count, Channels channels, Real* dx) {
    for_numbers(count, [&](auto kind, Index i) {
        using Number = decltype(kind);
        const Channel<Number> channel = channels.template at<Number>(i);
        put(channel.through_statistics(get<Number>(x + i)) + channel.scale * get<Number>(dz + i), dx + i);
    });
}

// --- Which pixel of a window counts -----------------------------------------------------------------------------------

// Where the weight is positive, and where it is negative. (Where it is neither, see Winner.)
enum Order { LARGEST, SMALLEST };

// In training one NaN has made the whole channel NaN, so that it doesn't matter which pixel counts.
template <Order ORDER, bool TRAINING, class Number>
inline Number that_counts(Number first, Number second) {
    if constexpr (ORDER == LARGEST) {
        if constexpr (TRAINING) return second > first ? second : first;
        return ((first >= second) | (first != first)) ? first : second;
    } else {
        if constexpr (TRAINING) return second < first ? second : first;
        return ((first <= second) | (first != first)) ? first : second;
    }
}

// Of equal ones the first, of several NaN the last, as in ATen's max-pool; for any sign of the weight.
struct Winner {
    Real x;
    Real number = 0;  // of the pixel in its window, in the order of rows

    void challenge(Real other, Real its_number, Real sign) {
        const bool wins = (other * sign > x * sign) | (other != other);
        x = wins ? other : x;
        number = wins ? its_number : number;
    }
};

// --- Sums -----------------------------------------------------------------------------------------------------------

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
        for (; i + 2 * LANES <= length; i += 2 * LANES) a += load(run, i), b += load(run, i + LANES);
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
            const Vector u = load(run, i) - guess, v = load(run, i + LANES) - guess;
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
            const Vector u = load(dz, i), v = load(dz, i + LANES);
            a += u, b += v;
            c += u * (load(x, i) - mean), d += v * (load(x, i + LANES) - mean);
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

    // With a pool also the pixels that count, into the memory where y will be: so x is read once only.
    void moments(const Stored* x, Table& table, Part part, Moments* found, Stored* y, Room& room) const {
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
            if (plan.pool) choose_all(x, table, {part.channel, part.channels_end, n, n + runs}, y, room);
        }
    }

    void apply(const Stored* x, Table& table, Part part, Stored* y, Room& room) const {
        const auto activation = Activation(plan.activation);
        if (plan.pool && !plan.training) choose_all(x, table, part, y, room);
        const Stored* from = plan.pool ? y : x;
        for (Index n = part.image; n < part.images_end; n++)
            for (Index c = part.channel; c < part.channels_end; c++) {
                const Index plane = (n * plan.channels + c) * output_pixels;
                for (Index start = plane; start < plane + output_pixels; start += TILE) {
                    const Index count = std::min(TILE, plane + output_pixels - start);
                    Real* made = target(y + start, room.at(OUTPUT));
                    activate(widened(from + start, count, room.at(INPUT)), count, table.one(c), activation, made);
                    narrow(made, count, y + start);
                }
            }
    }

    void sums(const Stored* x, const Stored* dy, Table& table, Part part, Sums* found, Real* notes, Room& room) const {
        const auto activation = Activation(plan.activation);
        std::vector<RunningSums> running(part.channels_end - part.channel);
        for_each_tile(part, [&](Index c, Index in, Index in_count, Index out, Index out_count) {
            const Same channel = table.one(c);
            const Real* seen = widened(x + in, in_count, room.at(INPUT));
            if (plan.pool) seen = choose(seen, out_count, channel.sign, room.at(CHOSEN));
            const Real* dz = widened(dy + out, out_count, room.at(GRADIENT));
            dz = before_activation(seen, dz, out_count, channel, activation, notes ? notes + in : room.at(WITHIN));
            running[c - part.channel].add(seen, dz, out_count, channel.all.mean);
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
                for (Index i = 0; i < in_count; i++) made[i] = channel.all.through_statistics(pixel[i]);
            } else if (plan.pool) {  // what is noted has to be read before it becomes dx
                Real* gradient = room.at(WITHIN);
                for_numbers(out_count, [&](auto kind, Index i) {
                    put(channel.all.scale * get<decltype(kind)>(dz + i), gradient + i);
                });
                spread_windows(pixel, gradient, out_count, channel, made);
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

    void choose_all(const Stored* x, Table& table, Part part, Stored* y, Room& room) const {
        for_each_tile(part, [&](Index c, Index in, Index in_count, Index out, Index out_count) {
            Real* chosen = target(y + out, room.at(CHOSEN));
            choose(widened(x + in, in_count, room.at(INPUT)), out_count, table.one(c).sign, chosen);
            narrow(chosen, out_count, y + out);
        });
    }

    // The pixel that counts of each of `windows` windows.
    const Real* choose(const Real* x, Index windows, Real sign, Real* chosen) const {
        if (plan.width < LANES || !(sign * sign > 0)) {
            for_each_window(windows, [&](Index place, Index window) { chosen[window] = winner(x + place, sign).x; });
        } else if (plan.training) {
            sign > 0 ? choose<LARGEST, true>(x, windows, chosen) : choose<SMALLEST, true>(x, windows, chosen);
        } else {
            sign > 0 ? choose<LARGEST, false>(x, windows, chosen) : choose<SMALLEST, false>(x, windows, chosen);
        }
        return chosen;
    }

    template <Order ORDER, bool TRAINING>
    void choose(const Real* x, Index windows, Real* chosen) const {
        const auto of_rows = [&](Index at) {
            return that_counts<ORDER, TRAINING>(load(x, at), load(x, at + plan.width));
        };
        for_each_vector(windows, [&](auto window, Halves at) {
            const Vector one = of_rows(at.one), two = of_rows(at.two);
            store(that_counts<ORDER, TRAINING>(Pair::left(one, two), Pair::right(one, two)), chosen, window);
        });
    }

    Winner winner(const Real* x, Real sign) const {
        Winner winner{x[0]};
        winner.challenge(x[1], 1, sign);
        winner.challenge(x[plan.width], 2, sign);
        winner.challenge(x[plan.width + 1], 3, sign);
        return winner;
    }

    // body(place of the first pixel, window), one by one.
    template <class Body>
    void for_each_window(Index windows, Body body) const {
        for (Index window = 0, row = 0; window < windows; window += pooled_width, row += 2 * plan.width) {
            SIDE_BY_SIDE
            for (Index j = 0; j < pooled_width; j++) body(row + 2 * j, window + j);
        }
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
                if (k + LANES / 2 < windows)
                    body(k, Halves{one, next()});
                else
                    body(Halves{k, k}, Halves{one, one});
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

    // Pairs of rows, and their windows' gradients.
    void spread_windows(const Real* x, const Real* gradient, Index windows, Same channel, Real* dx) const {
        if (plan.width < LANES || !plan.training || !(channel.sign * channel.sign > 0))
            for_each_window(windows, [&](Index place, Index window) {
                const Real which = winner(x + place, channel.sign).number;
                for (int number = 0; number < 4; number++) {
                    const Index at = place + number / 2 * plan.width + number % 2;
                    dx[at] = channel.all.through_statistics(x[at]) + (which == number ? gradient[window] : 0);
                }
            });
        else if (channel.sign > 0)
            spread_in_vectors<LARGEST>(x, gradient, windows, channel, dx);
        else
            spread_in_vectors<SMALLEST>(x, gradient, windows, channel, dx);
        if (plan.width % 2)
            for (Index i = plan.width - 1; i < windows / pooled_width * 2 * plan.width; i += plan.width)
                dx[i] = channel.all.through_statistics(x[i]);
    }

    template <Order ORDER>
    void spread_in_vectors(const Real* x, const Real* gradient, Index windows, Same same, Real* dx) const {
        const auto channel = same.at<Vector>(0);
        const Vector none{};
        for_each_vector(windows, [&](auto window, Halves at) {
            const Halves of = halves(window);
            for (int half = 0; half < 2; half++) {
                const Index place = half ? at.two : at.one, start = half ? of.two : of.one;
                const Vector above = load(x, place), below = load(x, place + plan.width);
                const Vector of_rows = that_counts<ORDER, true>(above, below);
                const Vector counts = that_counts<ORDER, true>(of_rows, Pair::swapped(of_rows));
                // The first of equal ones: the one with the lowest number.
                const Vector number = above == counts ? Pair::NUMBER : none + 4;
                const Vector number_below = below == counts ? Pair::NUMBER + 2 : none + 4;
                const Vector lower = that_counts<SMALLEST, true>(number, number_below);
                const Vector lowest = that_counts<SMALLEST, true>(lower, Pair::swapped(lower));
                const Vector all = Pair::doubled(load(gradient, Halves{start, start}));
                const Vector routed = number == lowest ? all : none, routed_below = number_below == lowest ? all : none;
                store((above - channel.mean) * channel.slope + (channel.level + routed), dx, place);
                store((below - channel.mean) * channel.slope + (channel.level + routed_below), dx, place + plan.width);
            }
        });
    }

    static Halves halves(Halves windows) { return windows; }
    static Halves halves(Index window) { return {window, window + LANES / 2}; }

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

    void moments(const Stored* x, Table&, Part part, Moments* found, Stored*, Room&) const {
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
            for_numbers(count, [&](auto kind, Index i) {
                using Number = decltype(kind);
                const Number u = get<Number>(dz + i);
                put(get<Number>(a + i) + u, a + i);
                put(get<Number>(b + i) + u * (get<Number>(seen + i) - each.at<Number>(i).mean), b + i);
            });
            if (++pending == ROWS_IN_REAL) settle();
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
    static constexpr Index ROWS = 256;         // of moments at a time
    static constexpr Index ROWS_IN_REAL = 64;  // before a sum of the backward goes on in double

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
                Winner winner{chosen[i], which[i]};
                winner.challenge(other[i], Real(number), each.sign(i));
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
                const Channel<Real> channel = each.at<Real>(k);
                made[k] = channel.through_statistics(seen[k]) + (whole && which[k] == number ? channel.scale * dz[k] : 0);
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

template <class Layout>
void forward(const Plan& plan, const Stored* x, Stored* y, double* saved, const Real* weight, const Real* bias,
             Real* running_mean, Real* running_var, double momentum, double eps) {
    const Layout layout(plan);
    Table table(plan.channels, weight, bias);
    std::vector<Moments> partials(plan.training ? plan.threads * plan.channels : 0);
    const auto collect = [&](Part part, Index number, Room& room) {
        if (plan.training) layout.moments(x, table, part, partials.data() + number * plan.channels, y, room);
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
        table.set_forward(c, mean, inverse_std);
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
    Table table(plan.channels, weight, bias);
    const double *mean = saved, *inverse_std = saved + plan.channels;
    for (Index c = 0; c < plan.channels; c++) table.set_forward(c, mean[c], inverse_std[c]);
    std::vector<Sums> partials(plan.threads * plan.channels);
    // dz waits for the second step in the memory where dx will be; in rows also which pixel of a window it goes to.
    std::unique_ptr<Real[]> wider;
    Real* const notes = notepad(dx, plan.images * plan.channels * plan.height * plan.width, wider);
    const auto collect = [&](Part part, Index number, Room& room) {
        layout.sums(x, dy, table, part, partials.data() + number * plan.channels, notes, room);
    };
    const auto finish = [&](Index c, Index parts) {
        const Sums all = merged(partials, c, parts, plan.channels);
        const double of_weight = (all.dz_x - Table::rest(mean[c]) * all.dz) * inverse_std[c];
        dbias[c] = Real(all.dz), dweight[c] = Real(of_weight);
        if (!plan.training) return;
        const double count = double(plan.images * plan.height * plan.width);
        table.set_backward(c, mean[c], inverse_std[c], all.dz, of_weight, count);
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
