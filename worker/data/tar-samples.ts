import { z } from 'zod';
import type { Row } from './filter/where.ts';
import type { IndexedSample } from './manifest.ts';
import { splitMemberName, type TarListing, type TarMember } from './tar-index.ts';

export const IMAGE_EXTENSIONS = ['jpg', 'jpeg', 'png', 'webp'] as const;

export interface SkippedSample {
  readonly name: string;
  readonly reason: string;
}

/** What an index takes from a tar beyond its pictures. */
export interface TarReading {
  /** `text` (default): a sample needs one. `none`: captions are left out. */
  readonly captions?: 'text' | 'none';
  /** Where captions are from, by file extension or key of the json: all that are there are kept, with their source. Default: the usual places. */
  readonly captionKeys?: readonly string[];
  /** Keys of the json that are kept in the index as `meta`. */
  readonly metaKeys?: readonly string[];
}

export interface IndexedTar {
  readonly samples: readonly IndexedSample[];
  /** The json beside each of `samples`; empty where there is none. */
  readonly sidecars: readonly Row[];
  /** Members and samples left out, with the reason; also the tar's own problems. */
  readonly skipped: readonly SkippedSample[];
}

/** What img2dataset and its relatives write; everything else in the file is allowed. */
const sidecarSchema = z.looseObject({
  caption: z.string().nullish(),
  captions: z.array(z.string()).nullish(),
  label: z.union([z.int(), z.string()]).nullish(),
  url: z.string().nullish(),
  width: z.number().nullish(),
  height: z.number().nullish(),
});

interface Group {
  readonly key: string;
  readonly members: Map<string, TarMember>;
}

/**
 * Samples of a WebDataset tar: members with one key, in the order of each key's first member. A sample needs a picture and a
 * caption (`txt`, or `caption`/`captions` of `json`). A second member of the same key and extension is left out.
 */
export function samplesOfTar(listing: TarListing, reading: TarReading = {}): IndexedTar {
  const skipped: SkippedSample[] = listing.problems.map(({ name, reason }) => ({ name, reason }));
  const samples: IndexedSample[] = [];
  const sidecars: Row[] = [];
  const needsCaption = reading.captions !== 'none';
  // A group that lacks what a broken member would have given is reported once, under that member.
  const brokenKeys = new Set(skipped.map(({ name }) => splitMemberName(name)?.key));
  for (const group of groups(listing.members, skipped)) {
    const image = IMAGE_EXTENSIONS.find((extension) => group.members.has(extension));
    const { described, sidecar } = describe(group, reading);
    const { captions } = described;
    if ((image === undefined || (needsCaption && captions.length === 0)) && brokenKeys.has(group.key)) continue;
    if (image === undefined) {
      skipped.push({ name: group.key, reason: captions.length > 0 ? 'caption-without-image' : 'no-image' });
    } else if (needsCaption && captions.length === 0) {
      skipped.push({ name: group.key, reason: 'image-without-caption' });
    } else {
      const files = Object.fromEntries(
        [...group.members].map(([extension, member]) => [
          extension,
          [member.offset, member.sizeBytes] as [number, number],
        ]),
      );
      samples.push({ key: group.key, image, files, ...described });
      sidecars.push(sidecar);
    }
  }
  return { samples, sidecars, skipped };
}

function groups(members: readonly TarMember[], skipped: SkippedSample[]): Iterable<Group> {
  const byKey = new Map<string, Group>();
  for (const member of members) {
    const { key, extension } = splitMemberName(member.name)!;
    const group = byKey.get(key) ?? { key, members: new Map<string, TarMember>() };
    byKey.set(key, group);
    if (group.members.has(extension)) skipped.push({ name: member.name, reason: 'duplicate' });
    else group.members.set(extension, member);
  }
  return byKey.values();
}

function describe(
  group: Group,
  { captions: wanted = 'text', captionKeys, metaKeys = [] }: TarReading,
): { readonly described: Omit<IndexedSample, 'key' | 'image' | 'files'>; readonly sidecar: Row } {
  const decoder = new TextDecoder();
  const read = (extension: string) => {
    const bytes = group.members.get(extension)?.text;
    return bytes === undefined ? undefined : decoder.decode(bytes).trim();
  };
  const row = parseSidecar(read('json')) ?? {};
  const sidecar = sidecarSchema.safeParse(row).data;
  const text = read('txt');
  const listed = sidecar?.captions ?? [];
  const found = listed.length > 0 ? listed : [text ?? sidecar?.caption ?? ''];
  const captions = found.map((caption) => caption.trim()).filter((caption) => caption !== '');
  const classText = read('cls');
  const classLabel = classText !== undefined && /^\d+$/.test(classText) ? Number(classText) : classText;
  const label = sidecar?.label ?? classLabel;
  const url = sidecar?.url;
  const kept = Object.fromEntries(metaKeys.filter((name) => isScalar(row[name])).map((name) => [name, row[name]]));
  const meta = { ...(url === undefined || url === null ? {} : { url }), ...kept } as NonNullable<IndexedSample['meta']>;
  const keyed = captionKeys && captionsFrom(captionKeys, (key) => read(key) ?? row[key]);
  const described = {
    ...(wanted === 'none' ? { captions: [] } : (keyed ?? { captions })),
    ...(label === undefined || label === null || label === '' ? {} : { label }),
    ...(Object.keys(meta).length === 0 ? {} : { meta }),
  };
  return { described, sidecar: row };
}

/** Captions by their sources: each key gives a text or a list of them; a caption that was there before is left out. */
export function captionsFrom(
  keys: readonly string[],
  lookUp: (key: string) => unknown,
): { readonly captions: string[]; readonly captionSources: string[] } {
  const found = new Map<string, string>();
  for (const key of keys) {
    for (const value of [lookUp(key)].flat()) {
      const caption = typeof value === 'string' ? value.trim() : '';
      if (caption !== '' && !found.has(caption)) found.set(caption, key);
    }
  }
  return { captions: [...found.keys()], captionSources: [...found.values()] };
}

function isScalar(value: unknown): boolean {
  return value !== undefined && (value === null || typeof value !== 'object');
}

/** Undefined where the member is not a JSON object: the text member may still hold a caption. */
export function parseSidecar(text: string | undefined): Row | undefined {
  if (text === undefined) return undefined;
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed) ? (parsed as Row) : undefined;
  } catch {
    // Not JSON: treated like any sidecar that says nothing.
    return undefined;
  }
}
