import { CoveyError } from '../../common/errors.ts';
import { type LabelledSample, splitByClass } from '../../transfer/data/labelled-set.ts';
import type { PictureSample, PictureSource } from '../../transfer/data/picture-source.ts';
import type { DomainPictures } from '../../transfer/domain/adapt.ts';
import type { AdaptationOptions } from './domain-options.ts';
import { type LabelChoices, labelSpace, splitLabels } from './label-options.ts';
import type { PicturesWanted, TransferSession } from './session.ts';

/** Labelled pictures of the target's domain, for the report alone. Nothing that trains or chooses is given this. */
export interface TargetJudge {
  readonly samples: readonly LabelledSample[];
  readonly pictures: PictureSource;
  /** `held-out target` or `target test`. */
  readonly name: string;
}

export interface DomainData {
  readonly classNames: readonly string[];
  readonly source: DomainPictures<LabelledSample>;
  readonly target: DomainPictures<PictureSample>;
  readonly judges: readonly TargetJudge[];
  /** Identities of the datasets. */
  readonly digests: { readonly source: string; readonly target: string };
}

/** Fewer pictures cannot be trained on and held out. */
const TARGET_MIN = 4;

/**
 * Opens both domains, and splits them.
 * @throws CoveyError INVALID_ARGUMENT for a source without labels or with one class, for a target without pictures, and for judges' labels
 *   that are not among the source's classes
 */
export async function openDomains(
  session: TransferSession,
  options: AdaptationOptions & LabelChoices,
  pictureOptions: PicturesWanted,
): Promise<DomainData> {
  const labels = await labelSpace(options);
  const own = await session.openLabelled(options.source, labels, pictureOptions);
  const classNames = own.set.classes;
  const split = splitLabels(own.set.samples, options);
  const other = await session.openPictures(options.target, pictureOptions);
  if (other.samples.length < TARGET_MIN) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot adapt to ${options.target}: ${other.samples.length} of its ${other.dataset.sampleCount} pictures can be read, at least ${TARGET_MIN} are needed`,
      { fields: { readable: other.samples.length, samples: other.dataset.sampleCount } },
    );
  }
  if (other.dataset.sha256 === own.dataset.sha256) {
    session.context.output.warn('source and target are the same dataset: there is no other domain to adapt to');
  }
  const held = heldOut(other.samples, options.validation, options.seed);
  const judges: TargetJudge[] = [];
  if (options.judgeTarget === true) {
    const set = await session.readLabels(other.dataset, { ...labels, classes: classNames });
    const isHeldOut = new Set(held.validation.map(({ located }) => located.sampleId));
    const samples = set.samples.filter(({ located }) => isHeldOut.has(located.sampleId));
    if (samples.length === 0) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        'Cannot judge with --judge-target: none of the target’s held-out pictures has a label; raise --validation, or give --target-test',
      );
    }
    judges.push({ samples, pictures: other.pictures, name: 'held-out target' });
  }
  if (options.targetTest !== undefined) {
    const test = await session.openLabelled(options.targetTest, { ...labels, classes: classNames }, pictureOptions);
    judges.push({ samples: test.set.samples, pictures: test.pictures, name: 'target test' });
  }
  return {
    classNames,
    source: { ...split, pictures: own.pictures },
    target: { ...held, pictures: other.pictures },
    judges,
    digests: { source: own.dataset.sha256, target: other.dataset.sha256 },
  };
}

/** A share of the pictures is left out of training: it chooses the weights, and shows how far apart the domains are. */
function heldOut(samples: readonly PictureSample[], share: number, seed: number) {
  // One class for all: there are no labels to go by.
  const { chosen, rest } = splitByClass(
    samples.map(({ located }) => ({ located, label: 0 })),
    share,
    seed,
  );
  const bare = (some: readonly LabelledSample[]): PictureSample[] => some.map(({ located }) => ({ located }));
  return { train: bare(rest), validation: bare(chosen) };
}
