import { concatenated } from '../../../common/concatenated.ts';
import { pickedRows } from '../../../common/picked-rows.ts';
import type { Engine } from '../../../engine/index.ts';
import type { PictureSample, PictureSource } from '../../data/picture-source.ts';
import { type FeatureRows, pictureFeatures } from '../../features/extract-features.ts';
import type { TransferNetwork } from '../../network.ts';
import { type DomainDistance, domainDistance } from './domain-distance.ts';
import { principalComponents } from './pca.ts';
import { TSNE_POINTS_MAX, TSNE_POINTS_MIN, tsne } from './tsne.ts';

/** The pictures of one domain that are looked at: such as no training saw. */
export interface ViewedDomain {
  readonly samples: readonly PictureSample[];
  readonly pictures: PictureSource;
}

type Point = readonly [x: number, y: number];

/** Places in the plane, by domain. */
export interface DomainPoints {
  readonly source: readonly Point[];
  readonly target: readonly Point[];
}

/** How two domains lie in a network's features. */
export interface DomainView {
  /** Undefined where there are too few pictures. */
  readonly distance: DomainDistance | undefined;
  readonly pca: DomainPoints;
  /** Of the variance, that of the two components together. */
  readonly pcaShare: number;
  /** Where there are too few points for it, the principal components. */
  readonly tsne: DomainPoints;
}

export interface ViewModules {
  readonly engine: Engine;
  readonly network: TransferNetwork;
  readonly signal?: AbortSignal | undefined;
}

export interface ViewOptions {
  readonly seed: number;
  /** Drawn of each domain, evenly spread over it; at most 500. Default 300. */
  readonly pointsMax?: number;
}

const POINTS_MAX = 300;
/** More than these are not needed to tell how far apart domains are. */
const SAMPLES_MAX = 1000;

/** Distance and pictures of two domains in the features that the network's head reads. At least two pictures together. */
export async function domainView(
  source: ViewedDomain,
  target: ViewedDomain,
  { seed, pointsMax = POINTS_MAX }: ViewOptions,
  modules: ViewModules,
): Promise<DomainView> {
  const [own, other] = [await features(source, modules), await features(target, modules)];
  const { dimensions } = own;
  const drawn = [own, other].map((rows) => someRows(rows, Math.min(pointsMax, TSNE_POINTS_MAX / 2)));
  const counts = drawn.map((rows) => rows.length / dimensions);
  const joint = concatenated(drawn);
  const { scores, shares } = principalComponents(joint, dimensions, 2);
  const isEnough = joint.length >= TSNE_POINTS_MIN * dimensions;
  const neighbours = isEnough ? tsne(joint, dimensions, { signal: modules.signal }) : scores;
  return {
    distance: domainDistance(own, other, seed),
    pca: pointsOf(scores, counts[0]!),
    pcaShare: shares.reduce((a, b) => a + b, 0),
    tsne: pointsOf(neighbours, counts[0]!),
  };
}

function features({ samples, pictures }: ViewedDomain, modules: ViewModules): Promise<FeatureRows> {
  return pictureFeatures(evenly(samples, SAMPLES_MAX), { ...modules, pictures });
}

function someRows({ features_ND, dimensions }: FeatureRows, count: number): Float32Array {
  const rows = Array.from({ length: features_ND.length / dimensions }, (_, row) => row);
  return pickedRows(features_ND, dimensions, evenly(rows, count));
}

/** At most `count` of them, spread over all. */
export function evenly<T>(all: readonly T[], count: number): readonly T[] {
  if (all.length <= count) return all;
  return Array.from({ length: count }, (_, i) => all[Math.floor((i * all.length) / count)]!);
}

function pointsOf(places: Float64Array, sources: number): DomainPoints {
  const points = Array.from({ length: places.length / 2 }, (_, n) => [places[2 * n]!, places[2 * n + 1]!] as const);
  return { source: points.slice(0, sources), target: points.slice(sources) };
}
