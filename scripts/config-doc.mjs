// Renders the JSON schema of run.yaml as docs/config.md.

const INTRO = `# run.yaml

<!-- Written by scripts/gen-config-doc.mjs from common/config/run-config.ts; do not edit. -->

A run is one file. Values come from the file, then from the environment, then from \`--set\`; a later one wins. Unknown keys are errors.

- Environment: \`COVEY_RUN__\` and the path with double underscores, e.g. \`COVEY_RUN__TRAIN__STEPS=100\`.
- Flags: \`--set train.steps=100\`; values are read as YAML, so \`--set data.augment.scale=[0.5,1]\` works.
- \`covey config validate run.yaml\` names every problem with its line; \`covey config show --origin run.yaml\` says where each value comes
  from; \`covey config schema\` prints the JSON schema for editors.
- Credentials are never part of it: COVEY_S3_ENDPOINT, COVEY_S3_ACCESS_KEY, COVEY_S3_SECRET_KEY and COVEY_S3_REGION (or the AWS_* names)
  are read from the environment by the processes that need them.

`;

const code = (text) => `\`${text}\``;
const cell = (text) => String(text).replaceAll('|', '\\|').replaceAll('\n', ' ');

/** Infinity stands for "no limit"; the schema writes the largest safe integer. */
function limits(schema) {
  const parts = [];
  if (schema.exclusiveMinimum !== undefined) parts.push(`> ${schema.exclusiveMinimum}`);
  if (schema.exclusiveMaximum !== undefined && schema.exclusiveMaximum < Number.MAX_SAFE_INTEGER)
    parts.push(`< ${schema.exclusiveMaximum}`);
  if (schema.minimum !== undefined && schema.minimum > Number.MIN_SAFE_INTEGER) parts.push(`≥ ${schema.minimum}`);
  if (schema.maximum !== undefined && schema.maximum < Number.MAX_SAFE_INTEGER) parts.push(`≤ ${schema.maximum}`);
  return parts.length > 0 ? ` ${parts.join(', ')}` : '';
}

function typeOf(schema) {
  if (schema.enum) return schema.enum.map(code).join(', ');
  if (schema.const !== undefined) return code(schema.const);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(' or ');
  if (schema.type === 'array')
    return `list of ${schema.prefixItems?.length ?? 'any length'}, each: ${typeOf(schema.prefixItems?.[0] ?? schema.items ?? {})}`;
  if (schema.type === 'integer') return `whole number${limits(schema)}`;
  if (schema.type === 'object') return 'section';
  return `${schema.type ?? 'any'}${limits(schema)}`;
}

/** Rows of [path, type, default, description] for every key; a union of sections is shown with the keys of its object form. */
function rowsOf(schema, path, required) {
  const branches = [schema, ...(schema.anyOf ?? [])].filter((one) => one.properties);
  const own = [];
  if (path !== '' && !(schema.type === 'object' && branches.length > 0)) {
    const fallback =
      schema.default === undefined ? (required ? '**required**' : 'none') : code(JSON.stringify(schema.default));
    own.push([code(path), typeOf(schema), fallback, schema.description ?? '']);
  }
  const inner = branches.flatMap((branch) =>
    Object.entries(branch.properties).flatMap(([name, child]) =>
      rowsOf(child, path === '' ? name : `${path}.${name}`, branch.required?.includes(name) ?? false),
    ),
  );
  return [...own, ...inner];
}

/** The page for a JSON schema as `z.toJSONSchema(schema, { io: 'input' })` gives it. */
export function renderConfigDoc(schema) {
  const groups = new Map();
  for (const row of rowsOf(schema, '', true)) {
    const path = row[0].slice(1, -1);
    const group = path.includes('.')
      ? path.split('.')[0]
      : schema.properties[path]?.anyOf?.some((one) => one.properties)
        ? path
        : '';
    groups.set(group, [...(groups.get(group) ?? []), row]);
  }
  const sections = [...groups].map(([group, rows]) => {
    const title = group === '' ? '## The run\n\n' : `## ${group}\n\n`;
    const lines = rows.map((row) => `| ${row.map(cell).join(' | ')} |`);
    return `${title}| key | value | default | meaning |\n|---|---|---|---|\n${lines.join('\n')}\n`;
  });
  return INTRO + sections.join('\n');
}
