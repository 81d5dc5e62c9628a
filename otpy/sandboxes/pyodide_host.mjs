// What Deno runs for the engine `Pyodide`: it loads Python, gives up the right to read, and then takes the code.
//
//   deno run … pyodide_host.mjs DIRECTORY INSIDE MEMORY OUTPUT
//
// The code may reach JavaScript from Python and do there what it likes: it has no permission for anything.

const [directory, inside, memory, output] = Deno.args;
const pages = Math.floor(Number(memory) / 65536);

const grow = WebAssembly.Memory.prototype.grow;
WebAssembly.Memory.prototype.grow = function (delta) {
  if (this.buffer.byteLength / 65536 + delta > pages) throw new RangeError("the sandbox's memory is used up");
  return grow.call(this, delta);
};

const source = Deno.readTextFileSync(inside);
const { loadPyodide } = await import(`file://${directory}/pyodide.mjs`);
const silent = () => {};
const python = await loadPyodide({ indexURL: `${directory}/`, stdin: () => null, stdout: silent, stderr: silent });
Deno.permissions.revokeSync({ name: "read" });

const decoder = new TextDecoder();
const encoder = new TextEncoder();
const chunk = new Uint8Array(1 << 16);
let rest = chunk.subarray(0, 0); // what has been read and not yet been taken

function receive() {
  const parts = [];
  for (;;) {
    if (rest.length === 0) {
      const size = Deno.stdin.readSync(chunk);
      if (size === null) return "";
      rest = chunk.subarray(0, size);
    }
    const end = rest.indexOf(10);
    parts.push(decoder.decode(end < 0 ? rest : rest.subarray(0, end), { stream: end < 0 }));
    rest = end < 0 ? chunk.subarray(0, 0) : rest.subarray(end + 1);
    if (end >= 0) return parts.join("");
  }
}

function send(line) {
  let bytes = encoder.encode(line + "\n");
  while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
}

python.FS.writeFile("/home/pyodide/inside.py", source);

python.pyimport("inside").serve(receive, send, Number(output));
