// Reads an AsyncAPI document from stdin and says what the parser of its makers finds wrong with it, as JSON.
const { Parser } = require("@asyncapi/parser");

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const { document, diagnostics } = await new Parser().parse(Buffer.concat(chunks).toString());
  const problems = diagnostics
    .filter((diagnostic) => diagnostic.severity <= 1)
    .map(({ code, message, path, severity }) => ({ code, message, path: path.join("."), severity }));
  const messages = document ? document.messages().all().map((message) => message.name()) : [];
  const channels = document ? document.channels().all().map((channel) => channel.address()) : [];
  process.stdout.write(JSON.stringify({ valid: document !== undefined, problems, messages, channels }));
}

main();
