import { mixKey, RandomStream } from '../../common/random.ts';
import { type Tensor, tf } from '../../engine/index.ts';

/** How the pictures of a lane are mixed: sample i with `share[i]` of itself and the rest of sample `partner[i]`. */
export interface Mixing {
  readonly partner: Int32Array;
  /** λ, in [0, 1]. */
  readonly share: Float32Array;
}

/**
 * mixup (Zhang et al. 2018, §2): x̃ = λ·x_i + (1 − λ)·x_j and the same of the targets, λ ~ Beta(α, α). Each sample draws a λ of its own from
 * its seed (the authors' code draws one for a whole batch). Partners lie within the lane, so that no pixels travel: the samples are ordered by
 * hashes of their seeds, and each is mixed with the next one round; in a lane of one sample nothing is mixed.
 */
export function laneMixing(seeds: Uint32Array, alpha: number): Mixing {
  const order = Array.from(seeds, (seed, row) => ({ row, hash: mixKey('mixup-order', seed)[0] }));
  order.sort((a, b) => a.hash - b.hash || a.row - b.row);
  const partner = new Int32Array(seeds.length);
  order.forEach(({ row }, place) => {
    partner[row] = order[(place + 1) % order.length]!.row;
  });
  return { partner, share: Float32Array.from(seeds, (seed) => betaDraw(alpha, new RandomStream('mixup', seed))) };
}

/** The pictures, or any rows that belong to them, mixed: [R, …]. */
export function mixed(x: Tensor, { partner, share }: Mixing): Tensor {
  return tf.tidy(() => {
    const share_R = tf.tensor(share, [share.length, ...x.shape.slice(1).map(() => 1)]);
    const others = tf.gather(x, tf.tensor1d(partner, 'int32'));
    return tf.add(tf.mul(x, share_R), tf.mul(others, tf.sub(1, share_R)));
  });
}

/** Beta(α, α) as X/(X + Y) of two draws of Gamma(α). */
function betaDraw(alpha: number, random: RandomStream): number {
  const [x, y] = [logGammaDraw(alpha, random), logGammaDraw(alpha, random)];
  return 1 / (1 + Math.exp(y - x));
}

/**
 * The logarithm of a draw of Gamma(α, 1) (Marsaglia & Tsang 2000): for a small α the draw itself would be 0. Below 1 by
 * Gamma(α) = Gamma(α + 1)·U^(1/α).
 */
function logGammaDraw(alpha: number, random: RandomStream): number {
  if (alpha < 1) return logGammaDraw(alpha + 1, random) + Math.log(1 - random.uniform()) / alpha;
  const d = alpha - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const z = random.normal();
    const v = (1 + c * z) ** 3;
    if (v > 0 && Math.log(1 - random.uniform()) < z ** 2 / 2 + d * (1 - v + Math.log(v))) return Math.log(d * v);
  }
}
