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
let parts = [];

function receive() {
  for (;;) {
    const size = Deno.stdin.readSync(chunk);
    if (size === null) return "";
    const end = chunk.subarray(0, size).indexOf(10);
    parts.push(decoder.decode(chunk.subarray(0, end < 0 ? size : end), { stream: end < 0 }));
    if (end >= 0) { // nothing follows: it is our turn only once a line is whole
      const line = parts.join("");
      parts = [];
      return line;
    }
  }
}

function send(line) {
  let bytes = encoder.encode(line + "\n");
  while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
}

python.FS.writeFile("/home/pyodide/inside.py", source);

python.pyimport("inside").serve(receive, send, Number(output));
