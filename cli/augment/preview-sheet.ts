import type { AugmentConfig } from '../../common/config/augment-config.ts';
import { decodeRgb, type RgbImage } from '../../models/preprocess/decode.ts';
import type { ViewDraw } from '../../models/preprocess/recipe/draw-view.ts';
import { RecipeTransform } from '../../models/preprocess/recipe/recipe-transform.ts';
import { viewPlan } from '../../models/preprocess/recipe/view-plan.ts';
import { renderSheet, type SheetCell } from './contact-sheet.ts';
import { describeView } from './describe-view.ts';
import type { PreviewPicture } from './preview-pictures.ts';

const PIXELS_MAX = 50_000_000;

export interface PreviewOptions {
  readonly augment: AugmentConfig;
  readonly recipe: string;
  readonly views: number;
  /** Side of a full-size view, pixels. */
  readonly size: number;
  readonly seed: number;
  readonly epoch: number;
}

export interface PreviewRow {
  readonly name: string;
  readonly sampleIndex: number;
  readonly width: number;
  readonly height: number;
  readonly views: readonly ViewDraw[];
}

/** One row per picture: the original, then its views. Throws DATA_CORRUPT where a picture is broken. */
export async function previewSheet(
  pictures: readonly PreviewPicture[],
  options: PreviewOptions,
): Promise<{ readonly png: Uint8Array; readonly rows: readonly PreviewRow[] }> {
  const { augment, recipe, seed, epoch, size } = options;
  const transform = new RecipeTransform({ imageSide: size, seed, augment });
  const plan = viewPlan(augment, size, options.views);
  const rows: PreviewRow[] = [];
  const cells: SheetCell[][] = [];
  for (const { name, sampleIndex, bytes } of pictures) {
    const image = await decodeRgb(bytes, { pixelsMax: PIXELS_MAX });
    const { width, height } = image;
    const views = plan.map(({ view }) => transform.draw({ epoch, sampleIndex, view }, image));
    rows.push({ name, sampleIndex, width, height, views });
    cells.push([original(name, image), ...views.map((view) => cellOf(view, image, transform))]);
  }
  const title = `${recipe}, seed ${seed}, epoch ${epoch}`;
  return { png: await renderSheet({ title, rows: cells, side: size }), rows };
}

function original(name: string, image: RgbImage): SheetCell {
  const short = name.split(/[/:]/).at(-1) ?? name;
  return {
    image,
    title: short.length > 18 ? `${short.slice(0, 17)}…` : short,
    lines: [`original, ${image.width}×${image.height}`],
  };
}

function cellOf(view: ViewDraw, source: RgbImage, transform: RecipeTransform): SheetCell {
  const { side } = view.spec;
  const pixels = transform.apply(source, view);
  return {
    image: { pixels, width: side, height: side },
    title: `view ${view.spec.view}`,
    lines: describeView(view, source),
  };
}
