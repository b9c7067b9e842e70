// Preloaded (`--import`) into a command under test: ends the process by SIGKILL at its n-th change of the file system below a folder, in the
// middle of a write or just before a rename. Without COVEY_TEST_KILL_AT it counts: the count lies in COVEY_TEST_POINTS at the end.
import { promises, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';

const { COVEY_TEST_KILL_UNDER: under, COVEY_TEST_KILL_AT: killAt, COVEY_TEST_POINTS: pointsFile } = process.env;
const { writeFile, rename } = promises;
let points = 0;

function reached(file) {
  if (under === undefined || path.relative(under, path.resolve(String(file))).startsWith('..')) return false;
  points++;
  return points === Number(killAt);
}

promises.writeFile = async (file, content, ...rest) => {
  if (!reached(file)) return writeFile(file, content, ...rest);
  const bytes = Buffer.from(content);
  await writeFile(file, bytes.subarray(0, Math.floor(bytes.length / 2)));
  process.kill(process.pid, 'SIGKILL');
  return new Promise(() => undefined);
};
promises.rename = async (from, to) => {
  if (!reached(to)) return rename(from, to);
  process.kill(process.pid, 'SIGKILL');
  return new Promise(() => undefined);
};
syncBuiltinESMExports();

if (pointsFile !== undefined) process.on('exit', () => writeFileSync(pointsFile, String(points)));
