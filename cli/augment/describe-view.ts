import type { ViewDraw } from '../../models/preprocess/recipe/draw-view.ts';

/** What was done to a view, in words for a label: each line one step, in the order of application. */
export function describeView(
  view: ViewDraw,
  source: { readonly width: number; readonly height: number },
  greyFirst: boolean,
): string[] {
  const share = (100 * view.crop.width * view.crop.height) / (source.width * source.height);
  const lines = [`crop ${share.toFixed(0)} %${view.flip ? ', flip' : ''}`];
  if (view.grayscale && greyFirst) lines.push('grey');
  for (const { kind, amount } of view.jitter) {
    lines.push(
      kind === 'hue'
        ? `hue ${amount < 0 ? '−' : '+'}${Math.abs(amount).toFixed(2)} turns`
        : `${kind} ×${amount.toFixed(2)}`,
    );
  }
  if (view.grayscale && !greyFirst) lines.push('grey');
  if (view.blurSigma !== undefined) lines.push(`blur σ ${view.blurSigma.toFixed(2)}`);
  if (view.solarize) lines.push('solarise');
  return lines;
}
