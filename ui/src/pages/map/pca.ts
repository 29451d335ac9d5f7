/** Principal components of centred vectors of which only the dot products with each other are known (their Gram matrix). */

export interface Components {
  /** For each component the coordinate of every vector, in units of the activations. */
  scores: readonly Float64Array[];
  /** Variance along each component, with n − 1 degrees of freedom, largest first. */
  variance: readonly number[];
  /** That as a part of the whole variance, 0 to 1. */
  share: readonly number[];
}

/** Components whose variance is below this part of the largest one are rounding. */
const RANK_TOLERANCE = 1e-12;
/** An eigenvector is good enough when its residual is below this part of the largest eigenvalue. */
const TOLERANCE = 1e-10;
const MOST_STEPS = 400;
/** Vectors that are iterated beside the wanted ones: they make it converge faster. */
const SPARE = 8;

/**
 * The first `k` components; fewer if the vectors span fewer. `gram` is n by n, row-major, of vectors whose mean is zero. The sign
 * of a component is chosen so that its coordinate of largest magnitude is positive. `pause` is awaited between steps.
 */
export async function componentsOf(
  gram: Float64Array,
  n: number,
  k: number,
  pause: () => Promise<void> = async () => {},
): Promise<Components> {
  let trace = 0;
  for (let i = 0; i < n; i++) trace += gram[i * n + i] as number;
  if (!Number.isFinite(trace)) throw new Error("Some vectors have NaN or infinite values, so they have no map.");
  if (!(trace > 0) || n < 2) return { scores: [], variance: [], share: [] };
  const { values, vectors } = await topEigen(gram, n, Math.min(k, n - 1), pause);
  const kept = values.filter((value) => value > RANK_TOLERANCE * trace).length;
  return {
    scores: vectors.slice(0, kept).map((vector, j) => scaled(vector, Math.sqrt(values[j] as number))),
    variance: values.slice(0, kept).map((value) => value / (n - 1)),
    share: values.slice(0, kept).map((value) => value / trace),
  };
}

function scaled(vector: Float64Array, size: number): Float64Array {
  let peak = 0;
  for (const value of vector) if (Math.abs(value) > Math.abs(peak)) peak = value;
  const factor = peak < 0 ? -size : size;
  return vector.map((value) => value * factor);
}

/** Subspace iteration with Rayleigh–Ritz steps: finds equal eigenvalues too. */
async function topEigen(a: Float64Array, n: number, k: number, pause: () => Promise<void>) {
  const width = Math.min(n, k + SPARE);
  let basis = orthonormal(randomVectors(n, width));
  for (let step = 0; ; step++) {
    const image = times(a, n, basis);
    const { values, rotation } = jacobi(basis.map((left) => image.map((right) => dot(left, right))));
    const vectors = rotated(basis, rotation);
    const images = rotated(image, rotation);
    const worst = values.slice(0, k).reduce((largest, value, j) => {
      return Math.max(largest, distance(images[j] as Float64Array, vectors[j] as Float64Array, value));
    }, 0);
    if (worst <= TOLERANCE * (values[0] as number) || step >= MOST_STEPS) {
      return { values: values.slice(0, k).map((value) => Math.max(0, value)), vectors: vectors.slice(0, k) };
    }
    basis = orthonormal(images);
    await pause();
  }
}

/** The matrix times each vector; row by row, so that it is read once. */
function times(a: Float64Array, n: number, vectors: readonly Float64Array[]): Float64Array[] {
  const out = vectors.map(() => new Float64Array(n));
  for (let i = 0; i < n; i++) {
    const row = a.subarray(i * n, (i + 1) * n);
    for (const [v, vector] of vectors.entries()) (out[v] as Float64Array)[i] = dot(row, vector);
  }
  return out;
}

function dot(a: Float64Array, b: Float64Array): number {
  // Four sums that do not wait for each other.
  let [s0, s1, s2, s3] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 3 < a.length; i += 4) {
    s0 += (a[i] as number) * (b[i] as number);
    s1 += (a[i + 1] as number) * (b[i + 1] as number);
    s2 += (a[i + 2] as number) * (b[i + 2] as number);
    s3 += (a[i + 3] as number) * (b[i + 3] as number);
  }
  for (; i < a.length; i++) s0 += (a[i] as number) * (b[i] as number);
  return s0 + s1 + (s2 + s3);
}

/** ‖a − factor · b‖ */
function distance(a: Float64Array, b: Float64Array, factor: number): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += ((a[i] as number) - factor * (b[i] as number)) ** 2;
  return Math.sqrt(sum);
}

/** Linear combinations: the columns of `rotation` are the weights. */
function rotated(vectors: readonly Float64Array[], rotation: readonly (readonly number[])[]): Float64Array[] {
  return vectors.map((_, column) => {
    const out = new Float64Array((vectors[0] as Float64Array).length);
    vectors.forEach((vector, row) => {
      const weight = rotation[row]?.[column] as number;
      for (let i = 0; i < out.length; i++) out[i] = (out[i] as number) + weight * (vector[i] as number);
    });
    return out;
  });
}

/** Gram–Schmidt, twice; a vector that depends on those before is replaced by a random one. */
function orthonormal(vectors: readonly Float64Array[]): Float64Array[] {
  const out: Float64Array[] = [];
  for (const [index, given] of vectors.entries()) {
    let vector = Float64Array.from(given);
    for (let attempt = 0; ; attempt++) {
      const before = Math.sqrt(dot(vector, vector));
      for (let pass = 0; pass < 2; pass++) {
        for (const other of out) {
          const part = dot(vector, other);
          for (let i = 0; i < vector.length; i++) vector[i] = (vector[i] as number) - part * (other[i] as number);
        }
      }
      const size = Math.sqrt(dot(vector, vector));
      if (size > 1e-10 * before && size > 0) {
        out.push(vector.map((value) => value / size));
        break;
      }
      vector = randomVectors(vector.length, 1, index + 1 + attempt * 97)[0] as Float64Array<ArrayBuffer>;
    }
  }
  return out;
}

/** The same numbers for the same seed, so that a view looks the same each time. */
function randomVectors(n: number, count: number, seed = 1): Float64Array[] {
  let state = (seed * 2654435761) >>> 0 || 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state / 2 ** 32 - 0.5;
  };
  return Array.from({ length: count }, () => Float64Array.from({ length: n }, next));
}

/** Eigenvalues, largest first, and eigenvectors (columns) of a small symmetric matrix, by Jacobi's rotations. */
function jacobi(given: readonly (readonly number[])[]): { values: number[]; rotation: number[][] } {
  const n = given.length;
  const a = given.map((row, i) => row.map((value, j) => (value + (given[j]?.[i] as number)) / 2));
  const v = a.map((_, i) => a.map((__, j) => (i === j ? 1 : 0)));
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0;
    let size = 0;
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        if (i !== j) off += at(a, i, j) ** 2;
        size += at(a, i, j) ** 2;
      }
    }
    if (off <= 1e-30 * size) break;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) rotate(a, v, p, q);
  }
  const order = a.map((_, i) => i).sort((i, j) => at(a, j, j) - at(a, i, i));
  return { values: order.map((i) => at(a, i, i)), rotation: v.map((row) => order.map((i) => row[i] as number)) };
}

const at = (a: number[][], i: number, j: number) => (a[i] as number[])[j] as number;

function rotate(a: number[][], v: number[][], p: number, q: number): void {
  const pq = at(a, p, q);
  if (pq === 0) return;
  const theta = (at(a, q, q) - at(a, p, p)) / (2 * pq);
  const t = Math.sign(theta || 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const c = 1 / Math.sqrt(t * t + 1);
  const s = t * c;
  const mix = (rows: number[][], i: number, x: number, y: number) => {
    const row = rows[i] as number[];
    const [left, right] = [row[x] as number, row[y] as number];
    row[x] = c * left - s * right;
    row[y] = s * left + c * right;
  };
  for (let i = 0; i < a.length; i++) mix(a, i, p, q);
  const [rowP, rowQ] = [a[p] as number[], a[q] as number[]];
  for (let i = 0; i < a.length; i++) {
    const [left, right] = [rowP[i] as number, rowQ[i] as number];
    rowP[i] = c * left - s * right;
    rowQ[i] = s * left + c * right;
  }
  for (let i = 0; i < v.length; i++) mix(v, i, p, q);
}
