-- As load.lua, but reads each answer: it must be what one of the known versions says about the row that was asked.
--   wrk -t1 -c16 -d60s -s checked.lua http://127.0.0.1:8000 -- /predict bodies.txt expected.txt
-- A request says which row it asks about in x-request-id, which the answer must carry back. Each line of the third file
-- is: row, version, prediction, probability of class 1.

local threads = {}
local TOLERANCE = 1e-5

function setup(thread)
   threads[#threads + 1] = thread
end

function init(args)
   prepared, expected = {}, {}
   sent, wrong, anonymous, first, second, example = 0, 0, 0, 0, 0, ""
   for line in io.lines(args[2]) do
      local headers = { ["content-type"] = "application/json", ["x-request-id"] = tostring(#prepared + 1) }
      headers["Host"] = wrk.headers["Host"]
      prepared[#prepared + 1] = wrk.format("POST", args[1], headers, line)
   end
   for line in io.lines(args[3]) do
      local row, version, prediction, share = line:match("(%S+) (%S+) (%S+) (%S+)")
      expected[row .. "/" .. version] = { prediction, tonumber(share) }
   end
   known = #prepared
end

function request()
   sent = sent + 1
   return prepared[sent % known + 1]
end

function response(status, headers, body)
   if status ~= 200 then
      return -- counted by the load tool itself
   end
   local row = headers["x-request-id"] or headers["X-Request-Id"]
   local version = body:match('"version":%s*(%d+)')
   if not row then
      anonymous = anonymous + 1
   end
   local should = row and version and expected[row .. "/" .. version]
   local prediction = body:match('"prediction":%s*([^,}]+)')
   local share = tonumber(body:match('"1":%s*([^,}]+)') or "")
   if not (should and share and prediction == should[1] and math.abs(share - should[2]) <= TOLERANCE) then
      wrong = wrong + 1
      example = body
   elseif version == "1" then
      first = first + 1
   else
      second = second + 1
   end
end

function done(summary, latency, requests)
   local thread, errors = threads[1], summary.errors
   if thread:get("wrong") > 0 then
      print("not what any version says: " .. thread:get("example"))
   end
   print(string.format(
      '{"sent": %d, "done": %d, "seconds": %.6f, "p50_ms": %.4f, "p90_ms": %.4f, "p99_ms": %.4f, "max_ms": %.4f, '
      .. '"non_2xx": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d, '
      .. '"wrong": %d, "anonymous": %d, "first": %d, "second": %d}',
      thread:get("sent"), summary.requests, summary.duration / 1e6,
      latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
      errors.status, errors.connect, errors.read, errors.write, errors.timeout,
      thread:get("wrong"), thread:get("anonymous"), thread:get("first"), thread:get("second")))
end
