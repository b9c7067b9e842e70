import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { LRUCache } from 'lru-cache';
import { CoveyError } from '../../common/errors.ts';
import { fromFileError } from '../../common/file-errors.ts';
import { makeFolder, writeWhole } from '../../common/whole-file.ts';
import { fillTemplate } from '../../worker/eval/text-classifier.ts';
import { readNpy, writeNpy } from '../features/npy.ts';
import { type EncodeProgress, encodeAllTexts } from './encode-all-texts.ts';
import type { JointModel } from './joint-model.ts';

export interface TextEmbeddingsOptions {
  /** What goes into every template: names or descriptions, in order. */
  readonly phrases: readonly string[];
  /** Where embeddings are kept between runs. Default: nowhere. */
  readonly folder?: string | undefined;
  /** Of memory; templates beyond it are read or encoded again. Default 256 MiB. */
  readonly bytesMax?: number;
}

const BYTES_MAX = 2 ** 28;

/**
 * Embeddings of every phrase in a template, unit-length rows [phrases, embedDim]. Encoded once per template and set of phrases; those used last are in
 * memory, all of them in the folder where there is one. The file's name says model, template and phrases, so that one which is there is right.
 */
export class TextEmbeddings {
  readonly phrases: readonly string[];
  readonly #model: JointModel;
  readonly #folder: string | undefined;
  readonly #phrasesDigest: string;
  readonly #kept: LRUCache<string, Float32Array>;
  #phraseLengths: Int32Array | undefined;

  constructor({ phrases, folder, bytesMax = BYTES_MAX }: TextEmbeddingsOptions, model: JointModel) {
    this.phrases = phrases;
    this.#model = model;
    this.#folder = folder;
    this.#phrasesDigest = createHash('sha256').update(JSON.stringify(phrases)).digest('hex');
    this.#kept = new LRUCache({ maxSize: bytesMax, sizeCalculation: (rows) => rows.byteLength });
  }

  /** The caller must not change it. */
  async of(template: string, progress: EncodeProgress = {}): Promise<Float32Array> {
    const kept = this.#kept.get(template);
    if (kept !== undefined) return kept;
    const rows_PE = (await this.#read(template)) ?? (await this.#encode(template, progress));
    this.#kept.set(template, rows_PE);
    return rows_PE;
  }

  /**
   * How many of the template's texts are longer than the model's context, so that their end is not read. Tokens of template and phrase are counted apart:
   * exact unless `{}` touches a letter.
   */
  cutTexts(template: string): number {
    const { tokenizer } = this.#model;
    const places = template.split('{}').length - 1;
    const around = tokenizer.lengthOf(fillTemplate(template, ' '));
    this.#phraseLengths ??= Int32Array.from(this.phrases, (phrase) => tokenizer.lengthOf(phrase) - ENDS);
    return this.#phraseLengths.filter((length) => around + places * length > tokenizer.contextLength).length;
  }

  async #encode(template: string, progress: EncodeProgress): Promise<Float32Array> {
    const texts = this.phrases.map((phrase) => fillTemplate(template, phrase));
    const { engine, model, tokenizer, columns } = this.#model;
    const values = await encodeAllTexts(texts, { engine, model, tokenizer }, progress);
    if (this.#folder !== undefined) {
      await makeFolder(this.#folder);
      await writeWhole(this.#file(template), writeNpy({ values, columns }));
    }
    return values;
  }

  async #read(template: string): Promise<Float32Array | undefined> {
    if (this.#folder === undefined) return undefined;
    const file = this.#file(template);
    const bytes = await readFile(file).catch((thrown: unknown) => {
      const error = fromFileError(thrown, 'read', file);
      if (CoveyError.is(error, 'NOT_FOUND')) return undefined;
      throw error;
    });
    if (bytes === undefined) return undefined;
    try {
      const { values, columns } = readNpy(bytes);
      return columns === this.#model.columns && values.length === this.phrases.length * columns ? values : undefined;
    } catch (thrown) {
      // Encoding again is cheap, and mends the file.
      if (CoveyError.is(thrown, 'DATA_CORRUPT')) return undefined;
      throw thrown;
    }
  }

  #file(template: string): string {
    const identity = JSON.stringify([this.#model.digest, template, this.#phrasesDigest]);
    return path.join(this.#folder!, `${createHash('sha256').update(identity).digest('hex').slice(0, 32)}.npy`);
  }
}

/** Start and end of a text. */
const ENDS = 2;
