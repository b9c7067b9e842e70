/** What an augmentation is a function of, besides the seed: never rank, time or order of arrival. */
export interface ViewIdentity {
  readonly epoch: number;
  readonly sampleIndex: number;
  /** 0 for CLIP; SimCLR-like objectives take several views. */
  readonly view: number;
}
