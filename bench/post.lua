-- wrk's script: POST one file again and again; at the end print the figures as a line of JSON.
--
--     wrk -s bench/post.lua URL -- FILE "Name: value" …

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  file:close()
  for i = 2, #args do
    local name, value = args[i]:match("^(.-): (.*)$")
    wrk.headers[name] = value
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "non_2xx": %d, '
      .. '"timeout": %d, "connect": %d, "read": %d, "write": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, errors.status,
    errors.timeout, errors.connect, errors.read, errors.write
  ))
end
