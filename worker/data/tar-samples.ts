import { z } from 'zod';
import type { IndexedSample } from './manifest.ts';
import { splitMemberName, type TarListing, type TarMember } from './tar-index.ts';

export const IMAGE_EXTENSIONS = ['jpg', 'jpeg', 'png', 'webp'] as const;

export interface SkippedSample {
  readonly name: string;
  readonly reason: string;
}

export interface IndexedTar {
  readonly samples: readonly IndexedSample[];
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
export function samplesOfTar(listing: TarListing): IndexedTar {
  const skipped: SkippedSample[] = listing.problems.map(({ name, reason }) => ({ name, reason }));
  const samples: IndexedSample[] = [];
  // A group that lacks what a broken member would have given is reported once, under that member.
  const brokenKeys = new Set(skipped.map(({ name }) => splitMemberName(name)?.key));
  for (const group of groups(listing.members, skipped)) {
    const image = IMAGE_EXTENSIONS.find((extension) => group.members.has(extension));
    const { captions, label, meta } = captionsOf(group);
    if ((image === undefined || captions.length === 0) && brokenKeys.has(group.key)) continue;
    if (image === undefined) {
      skipped.push({ name: group.key, reason: captions.length > 0 ? 'caption-without-image' : 'no-image' });
    } else if (captions.length === 0) {
      skipped.push({ name: group.key, reason: 'image-without-caption' });
    } else {
      const files = Object.fromEntries(
        [...group.members].map(([extension, member]) => [
          extension,
          [member.offset, member.sizeBytes] as [number, number],
        ]),
      );
      samples.push({
        key: group.key,
        image,
        files,
        captions,
        ...(label === undefined ? {} : { label }),
        ...(meta === undefined ? {} : { meta }),
      });
    }
  }
  return { samples, skipped };
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

function captionsOf(group: Group): Pick<IndexedSample, 'captions' | 'label' | 'meta'> {
  const decoder = new TextDecoder();
  const read = (extension: string) => {
    const bytes = group.members.get(extension)?.text;
    return bytes === undefined ? undefined : decoder.decode(bytes).trim();
  };
  const sidecar = parseSidecar(read('json'));
  const text = read('txt');
  const listed = sidecar?.captions ?? [];
  const found = listed.length > 0 ? listed : [text ?? sidecar?.caption ?? ''];
  const captions = found.map((caption) => caption.trim()).filter((caption) => caption !== '');
  const classText = read('cls');
  const classLabel = classText !== undefined && /^\d+$/.test(classText) ? Number(classText) : classText;
  const label = sidecar?.label ?? classLabel;
  const url = sidecar?.url;
  return {
    captions,
    ...(label === undefined || label === null || label === '' ? {} : { label }),
    ...(url === undefined || url === null ? {} : { meta: { url } }),
  };
}

/** Undefined where the member is not a JSON object of the known shape: the text member may still hold a caption. */
function parseSidecar(text: string | undefined): z.infer<typeof sidecarSchema> | undefined {
  if (text === undefined) return undefined;
  try {
    return sidecarSchema.safeParse(JSON.parse(text)).data;
  } catch {
    // Not JSON: treated like any sidecar that says nothing.
    return undefined;
  }
}
