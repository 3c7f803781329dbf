-- What wrk runs: send one prepared request after the other, over and over, and print what was measured on one line.
-- Called as `wrk ... -s cycle.lua URL -- REQUESTS`, REQUESTS being a file of whole HTTP requests, each after a line with its
-- length in bytes: bodies may be binary.
-- There is no response(): it would make wrk build a Lua table for each answer, which slows wrk, not the server. Answers are
-- checked in a pass of their own; here wrk counts statuses and socket errors, and the mean answer must have the right size.

local requests = {}
local last = 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  for length in file:lines() do
    requests[#requests + 1] = file:read(tonumber(length))
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end

-- Percentiles come from the histogram that `wrk --latency` prints, in microseconds.
function done(summary, latency)
  local failed = summary.errors
  io.write(string.format(
    'measured {"requests": %d, "duration_us": %d, "bytes": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, '
      .. '"socket_errors": %d, "timeouts": %d, "status_errors": %d}\n',
    summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), latency.max,
    failed.connect + failed.read + failed.write, failed.timeout, failed.status))
end
