// SPDX-FileCopyrightText: 2026 The lightning-losses authors
// SPDX-License-Identifier: Apache-2.0
//
// Softmax of rows in two passes over them (arXiv 2001.04438) and in three, compiled for the CPU
// that runs it by softmax_passes.py. Both share one exponential, so that only the passes differ.

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 32 };

// 2^k for a whole k, 0 below the range of floats.
static inline float power(float k) {
    k = k < -127.0f ? -127.0f : k;
    int32_t bits = ((int32_t)k + 127) << 23;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

// exp(x) as m 2^n, m near 1: no maximum is needed to keep it in range.
static inline float split(float x, float *n) {
    *n = rintf(x * 1.44269504f);
    float r = (x - *n * 0.693359375f) + *n * 2.12194440e-4f;
    return 1 + r * (1 + r * (0.5f + r * (0.166666667f + r * (0.0416666667f + r * (0.00833333333f
           + r * 0.00138888889f)))));
}

void two_pass(const float *x, float *y, long rows, long columns) {
    for (long i = 0; i < rows; i++, x += columns, y += columns) {
        float m[LANES], n[LANES];
        for (int l = 0; l < LANES; l++) m[l] = 0, n[l] = -1e30f;
        long j = 0;
        for (; j + LANES <= columns; j += LANES)
            for (int l = 0; l < LANES; l++) {
                float k, s = split(x[j + l], &k), top = k > n[l] ? k : n[l];
                m[l] = m[l] * power(n[l] - top) + s * power(k - top);
                n[l] = top;
            }
        for (; j < columns; j++) {
            float k, s = split(x[j], &k), top = k > n[0] ? k : n[0];
            m[0] = m[0] * power(n[0] - top) + s * power(k - top);
            n[0] = top;
        }
        float top = n[0], sum = 0;
        for (int l = 1; l < LANES; l++) top = n[l] > top ? n[l] : top;
        for (int l = 0; l < LANES; l++) sum += m[l] * power(n[l] - top);
        float scale = 1 / sum;
        for (j = 0; j < columns; j++) {
            float k, s = split(x[j], &k);
            y[j] = s * power(k - top) * scale;
        }
    }
}

void three_pass(const float *x, float *y, long rows, long columns) {
    for (long i = 0; i < rows; i++, x += columns, y += columns) {
        float top = x[0], sum = 0;
        for (long j = 0; j < columns; j++) top = x[j] > top ? x[j] : top;
        for (long j = 0; j < columns; j++) {
            float k, s = split(x[j] - top, &k);
            sum += s * power(k);
        }
        float scale = 1 / sum;
        for (long j = 0; j < columns; j++) {
            float k, s = split(x[j] - top, &k);
            y[j] = s * power(k) * scale;
        }
    }
}
