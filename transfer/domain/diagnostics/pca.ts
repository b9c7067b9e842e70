import { EigenvalueDecomposition, Matrix } from 'ml-matrix';

export interface PrincipalComponents {
  /** Scores [N, components], the component of largest variance first. */
  readonly scores: Float64Array;
  readonly components: number;
  /** Of the whole variance, per component. */
  readonly shares: readonly number[];
}

/**
 * Principal components of rows [N,D] by the eigenvalues of the smaller of covariance and Gram matrix, in fp64. A component's sign makes its
 * largest score positive, so that equal rows give equal pictures.
 */
export function principalComponents(
  rows_ND: Float32Array,
  dimensions: number,
  components: number,
): PrincipalComponents {
  const rows = rows_ND.length / dimensions;
  const x_ND = Matrix.from1DArray(rows, dimensions, Array.from(rows_ND)).center('column');
  const isTall = rows >= dimensions;
  const square = isTall ? x_ND.transpose().mmul(x_ND) : x_ND.mmul(x_ND.transpose());
  const { realEigenvalues, eigenvectorMatrix } = new EigenvalueDecomposition(square, { assumeSymmetric: true });
  const order = realEigenvalues.map((_, i) => i).sort((a, b) => realEigenvalues[b]! - realEigenvalues[a]!);
  const total = realEigenvalues.reduce((sum, value) => sum + Math.max(0, value), 0);
  const scores = new Float64Array(rows * components);
  const shares = Array.from({ length: components }, (_, c) => {
    const index = order[c];
    if (index === undefined || total === 0) return 0;
    const value = Math.max(0, realEigenvalues[index]!);
    const vector = eigenvectorMatrix.getColumnVector(index);
    // Of the Gram matrix the vectors are the scores, but for their length.
    const column = isTall ? x_ND.mmul(vector) : vector.mul(Math.sqrt(value));
    const along = column.to1DArray();
    const largest = along.reduce((best, score) => (Math.abs(score) > Math.abs(best) ? score : best), 0);
    along.forEach((score, n) => {
      scores[n * components + c] = largest < 0 ? -score : score;
    });
    return value / total;
  });
  return { scores, components, shares };
}
