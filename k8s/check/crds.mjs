// Judges objects of operators with the schemas that their projects publish as packages.
//
//   node crds.mjs DIRECTORY < manifests.json       -> for each manifest a list of what is wrong
//
// Two judges, since neither suffices. The compiled validator knows types, enums and patterns, and
// passes over fields that do not exist; the type declarations know every field, so a compiler that
// is given the object as a literal names those that are not there.
import { createRequire } from "node:module";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const modules = join(process.argv[2], "node_modules");
const ts = createRequire(join(modules, "package.json"))("typescript");

// The end of a group -> the package that has its kinds.
const PACKAGES = {
  "istio.io": "istio",
  "keda.sh": "keda",
  "bitnami.com": "sealed-secrets",
  "monitoring.coreos.com": "prometheus-operator",
  "cert-manager.io": "cert-manager",
  "external-secrets.io": "external-secrets",
  "argoproj.io": "argo-cd",
  "fluxcd.io": "flux-cd",
};
// "Object literal may only specify known properties", and the same with a guess.
const UNKNOWN_FIELD = new Set([2353, 2561]);

function located(manifest) {
  const [group, version] = manifest.apiVersion.split("/");
  const end = Object.keys(PACKAGES).find((each) => group.endsWith(each));
  const path = end && join(modules, "@kubernetes-models", PACKAGES[end], group, version, manifest.kind);
  return path && existsSync(`${path}.js`) ? path : null;
}

async function validated(manifest, path) {
  const Model = (await import(pathToFileURL(`${path}.js`)))[manifest.kind];
  try {
    new Model(manifest).validate();
    return [];
  } catch (error) {
    const found = error.errors ?? [];
    return found.length ? found.map((each) => `${each.instancePath} ${each.message}`) : [error.message];
  }
}

// One line for each manifest, so that a line is its number.
function unknownFields(manifests, paths) {
  const lines = manifests.map((manifest, number) => {
    if (!paths[number]) return "";
    const { apiVersion, kind, ...rest } = manifest;
    return `const m${number}: import(${JSON.stringify(paths[number])}).I${kind} = ${JSON.stringify(rest)};`;
  });
  const name = join(process.argv[2], "manifests.ts");
  const options = { strict: true, noEmit: true, skipLibCheck: true, moduleResolution: 100, module: 99, types: [] };
  const host = ts.createCompilerHost(options);
  const read = host.getSourceFile;
  host.getSourceFile = (path, ...rest) =>
    path === name ? ts.createSourceFile(path, lines.join("\n"), ts.ScriptTarget.Latest) : read(path, ...rest);
  const program = ts.createProgram([name], options, host);
  const source = program.getSourceFile(name);
  const found = manifests.map(() => []);
  for (const each of program.getSemanticDiagnostics(source)) {
    if (!UNKNOWN_FIELD.has(each.code)) continue;
    const { line } = source.getLineAndCharacterOfPosition(each.start);
    const field = source.text.slice(each.start, each.start + each.length);
    found[line].push(`there is no field ${field.replaceAll('"', "")}`);
  }
  return found;
}

const manifests = JSON.parse(readFileSync(0, "utf-8"));
const paths = manifests.map(located);
const unknown = unknownFields(manifests, paths);
const answers = [];
for (const [number, manifest] of manifests.entries()) {
  answers.push(
    paths[number]
      ? [...(await validated(manifest, paths[number])), ...unknown[number]]
      : [`no schema of ${manifest.apiVersion} ${manifest.kind} is known`],
  );
}
process.stdout.write(JSON.stringify(answers));
