import type { AugmentConfig } from '../../common/config/augment-config.ts';
import { PIXELS_MAX_DEFAULT } from '../../common/config/pixels-max.ts';
import { CoveyError } from '../../common/errors.ts';
import { decodeRgb, type RgbImage } from '../../models/preprocess/decode.ts';
import type { ViewDraw } from '../../models/preprocess/recipe/draw-view.ts';
import { RecipeTransform } from '../../models/preprocess/recipe/recipe-transform.ts';
import { distinctViews } from '../../models/preprocess/recipe/view-plan.ts';
import { renderSheet, type SheetCell } from './contact-sheet.ts';
import { describeView } from './describe-view.ts';
import type { PreviewPicture } from './preview-pictures.ts';

export interface PreviewOptions {
  readonly augment: AugmentConfig;
  readonly recipe: string;
  /** Per picture. Where a config tells its views apart, they are those of as many epochs as it takes; a multi-crop is shown whole. */
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
  readonly views: readonly (ViewDraw & { readonly epoch: number })[];
}

/** One row per picture: the original, then its views. Throws DATA_CORRUPT where a picture is broken. */
export async function previewSheet(
  pictures: readonly PreviewPicture[],
  options: PreviewOptions,
): Promise<{ readonly png: Uint8Array; readonly rows: readonly PreviewRow[] }> {
  const { augment, recipe, seed, size } = options;
  const transform = new RecipeTransform({ imageSide: size, seed, augment });
  const identities = identitiesOf(options);
  const rows: PreviewRow[] = [];
  const cells: SheetCell[][] = [];
  const cellOf = (view: PreviewRow['views'][number], source: RgbImage): SheetCell => {
    const { view: number, side } = view.spec;
    const image = { pixels: transform.apply(source, view), width: side, height: side };
    const lines = describeView(view, source, augment.jitter?.afterGrayscale ?? false);
    return { image, title: `view ${number}, epoch ${view.epoch}`, lines };
  };
  for (const { name, sampleIndex, bytes } of pictures) {
    const image = await decoded(name, bytes);
    const { width, height } = image;
    const views = identities.map((one) => ({ ...transform.draw({ ...one, sampleIndex }, image), epoch: one.epoch }));
    rows.push({ name, sampleIndex, width, height, views });
    cells.push([original(name, image), ...views.map((view) => cellOf(view, image))]);
  }
  const title = `${recipe}, seed ${seed}`;
  return { png: await renderSheet({ title, rows: cells, side: size }), rows };
}

async function decoded(name: string, bytes: Uint8Array): Promise<RgbImage> {
  try {
    return await decodeRgb(bytes, { pixelsMax: PIXELS_MAX_DEFAULT });
  } catch (thrown) {
    const { code, message, fields } = CoveyError.from(thrown);
    throw new CoveyError(code, `Cannot preview ${name}: ${message}`, { cause: thrown, fields: { ...fields, name } });
  }
}

/** BYOL's eight views are four pairs of two kinds, as four epochs show them: eight of the second kind never occur. */
function identitiesOf({ augment, epoch, views }: PreviewOptions): readonly { epoch: number; view: number }[] {
  const kinds = distinctViews(augment) ?? views;
  return Array.from({ length: augment.multiCrop === undefined ? views : kinds }, (_, i) => ({
    epoch: epoch + Math.floor(i / kinds),
    view: i % kinds,
  }));
}

function original(name: string, image: RgbImage): SheetCell {
  const short = name.split(/[/:]/).at(-1) ?? name;
  return {
    image,
    title: short.length > 18 ? `${short.slice(0, 17)}…` : short,
    lines: [`original, ${image.width}×${image.height}`],
  };
}
