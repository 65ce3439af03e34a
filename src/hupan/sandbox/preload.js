// Loaded into every Node by `hupan run`, before the program itself.
//
// Node's fetch and many libraries take no notice of proxy variables, so the hosts are led to the
// sandbox below all of them: in the one function that every TCP connection goes through, whether it
// is made by fetch, https, http2, axios or a WebSocket. TLS stays what it is, with the real names.
"use strict";

const told = process.env.HUPAN_REDIRECT;
if (told) {
  const dns = require("node:dns");
  const net = require("node:net");
  const os = require("node:os");

  // "host:port" to [address, port], as HUPAN_REDIRECT says it.
  const said = JSON.parse(told);
  const ways = new Map(Object.entries(said.targets ?? said));
  // Each host has an address of its own here, by which it is known again after a look-up.
  const hosts = [...new Set([...ways.keys()].map((way) => way.slice(0, way.lastIndexOf(":"))))];
  const addressOf = new Map(hosts.map((host, index) => [host, `127.78.0.${index + 1}`]));
  const hostOf = new Map([...addressOf].map(([host, address]) => [address, host]));
  const proxy = process.env.HTTPS_PROXY ? new URL(process.env.HTTPS_PROXY) : undefined;

  const plain = (host) => String(host).toLowerCase().replace(/\.$/, "");
  const near = (host) =>
    /^(127\.[\d.]+|::1|::ffff:127\.[\d.]+|0\.0\.0\.0|::|localhost|.+\.localhost|)$/.test(host) ||
    host === plain(os.hostname());

  function refusal(what, code) {
    const error = new Error(`hupan run: ${what} is not the sandbox's; nothing leaves this machine`);
    error.code = code;
    return error;
  }

  // The proxy counts what is refused, so it is told what did not come by it.
  function report(host, port) {
    if (!proxy) return;
    const line = new net.Socket();
    line.on("error", () => {});
    connect.call(line, { host: proxy.hostname.replace(/[[\]]/g, ""), port: Number(proxy.port) });
    line.resume();
    line.end(`CONNECT ${host.includes(":") ? `[${host}]` : host}:${port} HTTP/1.1\r\n\r\n`);
  }

  // ---------------------------------------------------------------- connections

  const connect = net.Socket.prototype.connect;
  net.Socket.prototype.connect = function (...args) {
    // net.connect hands its arguments on as one array, everybody else as they are.
    const given = Array.isArray(args[0]) ? args[0] : args;
    const callback = given.filter((one) => typeof one === "function").pop();
    let options = given[0];
    if (typeof options !== "object" || options === null) {
      options = { port: options };
      if (typeof given[1] === "string") options.host = given[1];
    }
    const port = Number(options.port);
    // A path is a socket in the file system.
    if (options.path || Number.isNaN(port)) return connect.apply(this, args);
    let host = plain(options.host ?? "localhost");
    host = hostOf.get(host) ?? host;
    const way = ways.get(`${host}:${port}`);
    if (way) {
      // A copy: TLS still compares the certificate with the host in the original.
      const led = { ...options, host: way[0], port: way[1], lookup: undefined, family: undefined };
      return connect.call(this, led, callback);
    }
    if (near(host)) return connect.apply(this, args);
    report(host, port);
    const error = refusal(`${host}:${port}`, "ECONNREFUSED");
    this.connecting = true;
    process.nextTick(() => this.destroy(error));
    return this;
  };

  // ---------------------------------------------------------------- names

  // What a look-up of a host says: an address, an error, or undefined where the machine answers.
  function answer(host, family) {
    const name = plain(host ?? "");
    const address = addressOf.get(name);
    if (address && family !== 6 && family !== "IPv6") return address;
    if (!address && (near(name) || net.isIP(name))) return undefined;
    return refusal(name, "ENOTFOUND");
  }

  function wrap(owner, name, respond) {
    const original = owner[name];
    if (typeof original !== "function") return;
    const wrapped = function (...args) {
      const said = respond(args);
      if (said === undefined) return original.apply(this, args);
      const callback = args[args.length - 1];
      if (typeof callback !== "function") {
        return said instanceof Error ? Promise.reject(said) : Promise.resolve(said.whole);
      }
      process.nextTick(() =>
        said instanceof Error ? callback(said) : callback(null, ...said.parts),
      );
      return {};
    };
    // Among its properties is what util.promisify goes by.
    owner[name] = Object.defineProperties(wrapped, Object.getOwnPropertyDescriptors(original));
  }

  function lookup([host, options]) {
    const wanted = typeof options === "object" && options !== null ? options : { family: options };
    const said = answer(host, wanted.family);
    if (typeof said !== "string") return said;
    const one = { address: said, family: 4 };
    return wanted.all ? { whole: [one], parts: [[one]] } : { whole: one, parts: [said, 4] };
  }

  // These ask a name server, which is never on this machine.
  function resolve([host, kind], method) {
    const address = addressOf.get(plain(host));
    const asked = method === "resolve" && typeof kind === "string" ? `resolve${kind}` : method;
    if (address && /^resolve(|4|A)$/.test(asked)) return { whole: [address], parts: [[address]] };
    return refusal(`${asked} of ${host}`, "ENOTFOUND");
  }

  for (const owner of [dns, dns.promises]) wrap(owner, "lookup", lookup);
  const asking = [dns, dns.Resolver.prototype, dns.promises, dns.promises.Resolver.prototype];
  for (const owner of asking) {
    for (const method of Object.getOwnPropertyNames(owner)) {
      if (/^resolve/.test(method)) wrap(owner, method, (args) => resolve(args, method));
    }
    for (const method of ["reverse", "lookupService"]) {
      wrap(owner, method, ([address]) =>
        near(plain(address)) ? undefined : refusal(address, "ENOTFOUND"),
      );
    }
  }
  // Programs that import these functions by name get the new ones too.
  require("node:module").syncBuiltinESMExports();
}
