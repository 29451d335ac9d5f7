// Kernels for what candle needs many passes over memory for. Each is described where it is called, in kernels.rs.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math_constants.h>

namespace {

constexpr unsigned WARP = 32;
constexpr unsigned ALL = 0xffffffffu;

__device__ __forceinline__ void put(float *to, float x) { *to = x; }
__device__ __forceinline__ void put(__nv_bfloat16 *to, float x) { *to = __float2bfloat16_rn(x); }
__device__ __forceinline__ void put(__half *to, float x) { *to = __float2half_rn(x); }

// The largest score so far, and the sum of the exponentials of all scores less that.
struct Sum {
    float largest, of_exponentials;
};

__device__ __forceinline__ Sum both(Sum a, Sum b) {
    Sum sum = {fmaxf(a.largest, b.largest), 0.0f};
    // Of no score at all the factor would be exp(-inf + inf). A NaN is no zero.
    if (a.of_exponentials != 0.0f) sum.of_exponentials += a.of_exponentials * expf(a.largest - sum.largest);
    if (b.of_exponentials != 0.0f) sum.of_exponentials += b.of_exponentials * expf(b.largest - sum.largest);
    return sum;
}

struct Scores {
    float scale, cap;
    const float *biases;

    __device__ __forceinline__ float at(const float *row, unsigned key) const {
        float score = row[key] * scale;
        if (cap > 0.0f) score = cap * tanhf(score / cap);
        return biases ? score + biases[key] : score;
    }
};

} // namespace

// One warp for each row of scores.
extern "C" __global__ void masked_softmax(const float *scores, float *pattern, const uint2 *seen, const float *biases, float scale, float cap,
                                          unsigned heads, unsigned queries, unsigned keys, unsigned seen_parts, unsigned bias_stride,
                                          unsigned long long rows) {
    const unsigned long long row = (unsigned long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row >= rows) return;
    const unsigned lane = threadIdx.x % WARP, query = row % queries, head = row / queries % heads;
    const unsigned long long part = row / queries / heads;
    const uint2 range = seen[(seen_parts == 1 ? 0 : part) * queries + query];
    const Scores of = {scale, cap, biases ? biases + (unsigned long long)head * bias_stride : nullptr};
    scores += row * keys;
    pattern += row * keys;
    Sum sum = {-CUDART_INF_F, 0.0f};
    for (unsigned key = range.x + lane; key < range.y; key += WARP) {
        const float score = of.at(scores, key);
        if (score > sum.largest) {
            sum = {score, sum.of_exponentials * expf(sum.largest - score) + 1.0f};
        } else if (!(score == -CUDART_INF_F)) {
            sum.of_exponentials += expf(score - sum.largest);
        }
    }
    for (unsigned other = WARP / 2; other > 0; other /= 2) {
        const Sum theirs = {__shfl_xor_sync(ALL, sum.largest, other), __shfl_xor_sync(ALL, sum.of_exponentials, other)};
        sum = both(sum, theirs);
    }
    const float factor = 1.0f / sum.of_exponentials;
    for (unsigned key = lane; key < keys; key += WARP) {
        const bool is_seen = key >= range.x && key < range.y && sum.of_exponentials != 0.0f;
        pattern[key] = is_seen ? expf(of.at(scores, key) - sum.largest) * factor : 0.0f;
    }
}

namespace {

enum Activation { SILU, GELU, GELU_TANH, RELU, RELU_SQUARED, QUICK_GELU };

__device__ __forceinline__ float activated(float x, unsigned activation) {
    switch (activation) {
    case SILU: return x / (1.0f + expf(-x));
    case GELU: return x * normcdff(x);
    case GELU_TANH: return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case RELU: return x < 0.0f ? 0.0f : x;
    case RELU_SQUARED: return x < 0.0f ? 0.0f : x * x;
    default: return x / (1.0f + expf(-1.702f * x));
    }
}

// Four numbers are read and written at once where they lie on the right boundaries.
template <typename T> struct alignas(4 * sizeof(T)) Four {
    T a, b, c, d;
};

__device__ __forceinline__ bool is_aligned(const void *at, unsigned bytes) { return (unsigned long long)at % bytes == 0; }

template <typename T>
__device__ __forceinline__ void gated(const float *gate, const float *up, T *out, unsigned activation, unsigned long long n) {
    const unsigned long long first = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned long long step = (unsigned long long)gridDim.x * blockDim.x;
    if (n % 4 == 0 && is_aligned(gate, 16) && is_aligned(up, 16) && is_aligned(out, 4 * sizeof(T))) {
        for (unsigned long long i = first; i < n / 4; i += step) {
            const float4 g = ((const float4 *)gate)[i], u = ((const float4 *)up)[i];
            Four<T> four;
            put(&four.a, activated(g.x, activation) * u.x);
            put(&four.b, activated(g.y, activation) * u.y);
            put(&four.c, activated(g.z, activation) * u.z);
            put(&four.d, activated(g.w, activation) * u.w);
            ((Four<T> *)out)[i] = four;
        }
        return;
    }
    for (unsigned long long i = first; i < n; i += step) {
        put(out + i, activated(gate[i], activation) * up[i]);
    }
}

// A block of the norm goes over one row.
template <typename T>
__device__ __forceinline__ void normed(const float *x, const float *gain, T *out, float eps, unsigned width) {
    __shared__ float sums[WARP];
    x += (unsigned long long)blockIdx.x * width;
    out += (unsigned long long)blockIdx.x * width;
    const bool by_four = width % 4 == 0 && is_aligned(x, 16) && is_aligned(gain, 16) && is_aligned(out, 4 * sizeof(T));
    float sum = 0.0f;
    if (by_four) {
        for (unsigned i = threadIdx.x; i < width / 4; i += blockDim.x) {
            const float4 v = ((const float4 *)x)[i];
            sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        }
    } else {
        for (unsigned i = threadIdx.x; i < width; i += blockDim.x) sum += x[i] * x[i];
    }
    for (unsigned other = WARP / 2; other > 0; other /= 2) sum += __shfl_xor_sync(ALL, sum, other);
    if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x < WARP) {
        sum = threadIdx.x < blockDim.x / WARP ? sums[threadIdx.x] : 0.0f;
        for (unsigned other = WARP / 2; other > 0; other /= 2) sum += __shfl_xor_sync(ALL, sum, other);
        if (threadIdx.x == 0) sums[0] = sum;
    }
    __syncthreads();
    const float factor = 1.0f / sqrtf(sums[0] / width + eps);
    if (!by_four) {
        for (unsigned i = threadIdx.x; i < width; i += blockDim.x) put(out + i, x[i] * factor * gain[i]);
        return;
    }
    for (unsigned i = threadIdx.x; i < width / 4; i += blockDim.x) {
        const float4 v = ((const float4 *)x)[i], g = ((const float4 *)gain)[i];
        Four<T> four;
        put(&four.a, v.x * factor * g.x);
        put(&four.b, v.y * factor * g.y);
        put(&four.c, v.z * factor * g.z);
        put(&four.d, v.w * factor * g.w);
        ((Four<T> *)out)[i] = four;
    }
}

} // namespace

extern "C" __global__ void gated_f32(const float *gate, const float *up, float *out, unsigned activation, unsigned long long n) {
    gated(gate, up, out, activation, n);
}
extern "C" __global__ void gated_bf16(const float *gate, const float *up, __nv_bfloat16 *out, unsigned activation, unsigned long long n) {
    gated(gate, up, out, activation, n);
}
extern "C" __global__ void gated_f16(const float *gate, const float *up, __half *out, unsigned activation, unsigned long long n) {
    gated(gate, up, out, activation, n);
}

extern "C" __global__ void rms_norm_bf16(const float *x, const float *gain, __nv_bfloat16 *out, float eps, unsigned width) {
    normed(x, gain, out, eps, width);
}
extern "C" __global__ void rms_norm_f16(const float *x, const float *gain, __half *out, float eps, unsigned width) {
    normed(x, gain, out, eps, width);
}

// A block for each row `[heads, width]` of the input, or of what is picked of it.
extern "C" __global__ void heads_first(const float *x, float *out, const unsigned *picked, unsigned rows_of_part, unsigned heads, unsigned width) {
    const unsigned row = blockIdx.x, part = row / rows_of_part, of_part = row % rows_of_part;
    x += (unsigned long long)(picked ? picked[row] : row) * heads * width;
    out += ((unsigned long long)part * heads * rows_of_part + of_part) * width;
    for (unsigned i = threadIdx.x; i < heads * width; i += blockDim.x) {
        out[(unsigned long long)(i / width) * rows_of_part * width + i % width] = x[i];
    }
}

// The way back.
extern "C" __global__ void heads_last(const float *x, float *out, unsigned rows_of_part, unsigned heads, unsigned width) {
    const unsigned row = blockIdx.x, part = row / rows_of_part, of_part = row % rows_of_part;
    x += ((unsigned long long)part * heads * rows_of_part + of_part) * width;
    out += (unsigned long long)row * heads * width;
    for (unsigned i = threadIdx.x; i < heads * width; i += blockDim.x) {
        out[i] = x[(unsigned long long)(i / width) * rows_of_part * width + i % width];
    }
}
