import { decodeHTML } from 'entities';

/**
 * Captions are cleaned as open_clip's tokenizer does (`tokenizer.py`: ftfy, html.unescape twice, strip, collapse whitespace, lower). ftfy is
 * Python; of it the repairs that are plain tables are done here (quotes, ligatures, full-width forms, control characters, NFC). Not
 * done: guessing the encoding of mojibake, and terminal escapes.
 */
export function cleanCaption(text: string): string {
  const unescaped = decodeHTML(decodeHTML(repairCharacters(text)));
  return unescaped.trim().replace(/\s+/gu, ' ').toLowerCase();
}

// ftfy/chardata.py
const SINGLE_QUOTES = /[\u02bc\u2018-\u201b]/gu;
const DOUBLE_QUOTES = /[\u201c-\u201f]/gu;
const LATIN_LIGATURES = /[ĲĳŉǱǲǳǄǅǆǇǈǉǊǋǌﬀ-ﬆ]/gu;
const FULL_AND_HALF_WIDTH = /[\u3000\uff01-\uffef]/gu;
// biome-ignore lint/suspicious/noControlCharactersInRegex: removing control characters is the point
const CONTROL = /[\u0000-\u0008\u000b\u000e-\u001f\u007f\u206a-\u206f\ufeff\ufff9-\ufffc]/gu;

function repairCharacters(text: string): string {
  const compatible = (character: string) => character.normalize('NFKC');
  return text
    .replace(LATIN_LIGATURES, compatible)
    .replace(FULL_AND_HALF_WIDTH, compatible)
    .replace(SINGLE_QUOTES, "'")
    .replace(DOUBLE_QUOTES, '"')
    .replace(CONTROL, '')
    .normalize('NFC');
}
