-- Decides one refresh of one session, atomically. `rotation.py` explains the decisions and is the only caller.
--
-- KEYS[1]  the session's key; its value is "<generation> <rotated_at>"
-- ARGV     1 presented generation          2 checkpoint generation       3 checkpoint rotated_at (0: never rotated)
--          4 now                           5 replay window               6 life of the key
--          7 latest moment at which to act, by this node's own clock (0: not known)
-- Times are milliseconds; 3 and 4 are PostgreSQL's clock. Returns {outcome, generation, rotated_at, node's clock}.

local presented = tonumber(ARGV[1])
local current = tonumber(ARGV[2])
local rotated_at = tonumber(ARGV[3])
local now = tonumber(ARGV[4])
local window = tonumber(ARGV[5])
local life = ARGV[6]
local not_after = tonumber(ARGV[7])

local time = redis.call('TIME')
local node_now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function answer(outcome)
  return {outcome, current, rotated_at, node_now}
end

local function store(generation)
  current = generation
  rotated_at = now
  redis.call('SET', KEYS[1], string.format('%d %d', current, rotated_at), 'PX', life)
end

-- A command that waited too long, in a stopped process or before a stalled Redis, carries an old `now`: a rotation
-- dated then would have its window behind it, and the next honest retry would look like theft.
if not_after > 0 and node_now > not_after then
  return answer('late')
end

local stored = redis.call('GET', KEYS[1])
if stored then
  local generation, at = string.match(stored, '^(%d+) (%d+)$')
  generation, at = tonumber(generation), tonumber(at)
  if generation and (generation > current or (generation == current and at > rotated_at)) then
    current, rotated_at = generation, at
  end
end

local within_window = rotated_at > 0 and now - rotated_at < window

if presented > current then
  store(presented)
  return answer('adopted')
elseif presented == current then
  if within_window then
    return answer('held')
  end
  store(current + 1)
  return answer('rotated')
elseif presented == current - 1 and within_window then
  return answer('replayed')
elseif now < rotated_at then
  -- Its time was read before the current generation existed: a straggler, which proves nothing about theft.
  return answer('late')
end
return answer('reused')
