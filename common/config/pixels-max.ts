/** Pixels of a picture where nothing else is said: one with more is refused as broken, before its memory is asked for. */
export const PIXELS_MAX_DEFAULT = 50_000_000;
