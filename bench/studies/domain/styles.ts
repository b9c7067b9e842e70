import { augmentSchema } from '../../../common/config/augment-config.ts';
import { type LabelledSample, readLabelledSet, splitByClass } from '../../../transfer/data/labelled-set.ts';
import { type PictureSample, PictureSource } from '../../../transfer/data/picture-source.ts';
import type { DomainPictures } from '../../../transfer/domain/adapt.ts';
import { ICON_CATEGORIES } from '../../../worker/data/pack/icon-source.ts';
import { type IconPictures, PIXELS_MAX } from '../pretraining/icon-pictures.ts';

export interface Styles {
  readonly source: DomainPictures<LabelledSample>;
  /** Without labels. */
  readonly target: DomainPictures<PictureSample>;
  /** The target's pictures with labels: for the judge, and for the training that shows what labels would be worth. */
  readonly judge: {
    readonly test: readonly LabelledSample[];
    readonly train: readonly LabelledSample[];
    readonly validation: readonly LabelledSample[];
  };
  readonly classes: number;
}

const TEST_SHARE = 0.3;
const VALIDATION_SHARE = 0.2;
const SPLIT_SEED = 7;

/** One artist's drawings with their categories, and those of the held-out artist, whose categories only the judge knows. */
export async function openStyles(
  icons: IconPictures,
  { style, imageSide, augment }: { readonly style: string; readonly imageSide: number; readonly augment: object },
): Promise<Styles> {
  const labels = { metaKey: 'category', classes: ICON_CATEGORIES };
  const { samples } = await readLabelledSet(icons.train, labels);
  const drawn = samples.filter(({ located }) => located.record.meta?.['set'] === style);
  const held = await readLabelledSet(icons.test, labels);
  const options = { imageSide, augment: augmentSchema.parse(augment), seed: 0, pixelsMax: PIXELS_MAX };
  const [sourcePictures, targetPictures] = [icons.cache.train, icons.cache.test].map(
    (cache) => new PictureSource(options, { cache }),
  );
  const { chosen: test, rest } = splitByClass(held.samples, TEST_SHARE, SPLIT_SEED);
  const own = splitByClass(drawn, VALIDATION_SHARE, SPLIT_SEED);
  const other = splitByClass(rest, VALIDATION_SHARE, SPLIT_SEED);
  const unlabelled = (some: readonly LabelledSample[]) => some.map(({ located }) => ({ located }));
  return {
    source: { train: own.rest, validation: own.chosen, pictures: sourcePictures! },
    target: { train: unlabelled(other.rest), validation: unlabelled(other.chosen), pictures: targetPictures! },
    judge: { test, train: other.rest, validation: other.chosen },
    classes: ICON_CATEGORIES.length,
  };
}
