-- Rotates the bodies of a file, one a line, and prints what came of them as one line of JSON.
--   wrk -t1 -c64 -d3s -s load.lua http://127.0.0.1:8000 -- /predict bodies.txt
-- Request bodies are formatted once, so that the load tool costs as little as it can.

local threads = {}

function setup(thread)
   threads[#threads + 1] = thread
end

function init(args)
   prepared, sent = {}, 0
   wrk.headers["content-type"] = "application/json"
   for line in io.lines(args[2]) do
      prepared[#prepared + 1] = wrk.format("POST", args[1], nil, line)
   end
   known = #prepared
end

function request()
   sent = sent + 1
   return prepared[sent % known + 1]
end

function done(summary, latency, requests)
   local errors = summary.errors
   local all = 0
   for _, thread in ipairs(threads) do
      all = all + thread:get("sent")
   end
   print(string.format(
      '{"sent": %d, "done": %d, "seconds": %.6f, "p50_ms": %.4f, "p90_ms": %.4f, "p99_ms": %.4f, "max_ms": %.4f, '
      .. '"non_2xx": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}',
      all, summary.requests, summary.duration / 1e6,
      latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
      errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
