/** What a report shows. Everything in it was measured; the renderer adds nothing but layout. */
export interface ReportData {
  readonly title: string;
  /** One or two sentences under the title. */
  readonly summary: string;
  /** When the run ended, ISO 8601. */
  readonly createdAt: string;
  readonly headline: readonly HeadlineFigure[];
  readonly training: TrainingRecord;
  readonly evaluation?: EvaluationRecord;
  /** The resolved config, as YAML. */
  readonly configYaml: string;
  /** What ran where: program → version. */
  readonly environment: Readonly<Record<string, string>>;
  /** Source of pictures → who made them, and the licence. */
  readonly credits: Readonly<Record<string, string>>;
}

export interface HeadlineFigure {
  readonly label: string;
  readonly value: string;
  readonly note?: string;
}

export interface ReportStep {
  readonly step: number;
  readonly generation: number;
  readonly loss: number;
  readonly logitScale: number;
  readonly learningRate: number;
  /** Seconds since the first step began. */
  readonly seconds: number;
  /** On the worker that reported the step. */
  readonly phaseSeconds: Readonly<Record<string, number>>;
  /** The objective's own results, and the health of embeddings on the steps that measured it. */
  readonly measures?: Readonly<Record<string, number>>;
}

/** Something that happened to the run at a moment. */
export interface ReportMark {
  /** Last step before it. */
  readonly step: number;
  readonly seconds: number;
  readonly label: string;
}

export interface TrainingRecord {
  readonly globalBatch: number;
  readonly steps: readonly ReportStep[];
  /** Of held-out data, in step order. */
  readonly evaluations?: readonly { readonly step: number; readonly metrics: Readonly<Record<string, number>> }[];
  readonly marks: readonly ReportMark[];
  /** Times without a committed step, with their cause. */
  readonly gaps: readonly { readonly fromSeconds: number; readonly toSeconds: number; readonly label: string }[];
}

export interface RankedClass {
  readonly className: string;
  /** Cosine. */
  readonly similarity: number;
}

export interface ReportPicture {
  readonly label: string;
  /** A data URI. */
  readonly source: string;
}

export interface EvaluationRecord {
  readonly heldOut: string;
  readonly classes: number;
  readonly pictures: number;
  /** Fractions of 1. */
  readonly top1: number;
  readonly top5: number;
  /** Of the right class, 1 = first. */
  readonly medianRank: number;
  readonly textToImageTop1: number;
  readonly textToImageTop5: number;
  /** Names, each with the pictures closest to it, best first; `right`: the picture is of that name. */
  readonly textToImage: readonly {
    readonly query: string;
    readonly found: readonly (ReportPicture & { readonly right: boolean })[];
  }[];
  /** Pictures, each with the names closest to it, best first. */
  readonly imageToText: readonly {
    readonly picture: ReportPicture;
    readonly found: readonly (RankedClass & { readonly right: boolean })[];
  }[];
  /** The surest mistakes. */
  readonly confusions: readonly {
    readonly picture: ReportPicture;
    readonly guess: RankedClass;
    readonly guessPicture: ReportPicture | undefined;
  }[];
  /** Every class with the place of the right name among all names, 1 = first. */
  readonly ranks: readonly { readonly className: string; readonly rank: number }[];
}
