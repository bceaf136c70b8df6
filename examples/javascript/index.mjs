// Allocates memory from an Isobar node, follows the pressure of its device, and gives the
// memory back.
//
//   npm ci
//   node index.mjs --url nats://127.0.0.1:4222 --device ram-0 --mib 64 --seconds 10
//
// --events N ends after so many changes of pressure, if they come before the time is up.
import { parseArgs } from "node:util";
import { connect } from "@nats-io/transport-node";

const { values: args } = parseArgs({
  options: {
    url: { type: "string", default: "nats://127.0.0.1:4222" },
    device: { type: "string", default: "ram-0" },
    mib: { type: "string", default: "64" },
    seconds: { type: "string", default: "10" },
    events: { type: "string", default: "0" },
  },
});

const nc = await connect({ servers: args.url, name: "isobar javascript example" }).catch((error) => {
  console.error(`${args.url}: ${error.message}: is a node running?`);
  process.exit(1);
});

// call gives a command and returns its data; an error carries the contract's code.
async function call(action, data) {
  const message = await nc.request(`memory.${action}`, JSON.stringify({ data }), { timeout: 15_000 });
  const reply = message.json();
  if (!reply.success) {
    const error = new Error(`${action}: ${reply.error_code}: ${reply.error_message}`);
    error.code = reply.error_code;
    error.details = reply.details;
    throw error;
  }
  return reply.data;
}

try {
  // Whoever subscribes first and reads the level then misses no change: the sequence tells
  // which events are older than the answer.
  const events = nc.subscribe(`memory.events.pressure.*.${args.device}`);
  await nc.flush();
  const { pressure } = await call("get_pressure", { device_id: args.device });
  console.log(`pressure of ${pressure.device_id} is ${pressure.pressure_level}, sequence ${pressure.sequence}`);

  const bytes = Number(args.mib) * 1024 * 1024;
  const grant = await call("allocate", { device_id: args.device, size_bytes: bytes, purpose: "javascript example", lease_seconds: 600 });
  if (grant.status !== "completed") {
    throw new Error(`the request waits as operation ${grant.operation_id}: ${grant.reason}`);
  }
  // A process on the same machine maps the memory with the claim: see ../map.py.
  console.log(`granted ${grant.allocation.size_bytes} bytes of ${grant.device_id} as ${grant.allocation_id}, claim at ${grant.handle.data_socket}`);

  const end = setTimeout(() => events.unsubscribe(), Number(args.seconds) * 1000);
  let seen = 0;
  for await (const message of events) {
    const { event, sequence, data } = message.json();
    if (event !== "pressure_changed" || sequence <= pressure.sequence) continue;
    console.log(`pressure ${data.previous_level} -> ${data.pressure_level} because of ${data.cause}, ${data.utilization_percentage.toFixed(1)} % in use`);
    if (++seen === Number(args.events)) break;
  }
  clearTimeout(end);

  const freed = await call("deallocate", { allocation_id: grant.allocation_id });
  console.log(`freed ${freed.freed_bytes} bytes, confirmed: ${freed.confirmed}`);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  await nc.drain();
}
