-- Decides one refresh of one session, atomically. `rotation.py` explains the decisions and is the only caller.
--
-- KEYS[1]  the session's key; its value is "<generation> <rotated_at>", and " <replayed_at>" where that matters
-- ARGV     1 presented generation          2 checkpoint generation       3 checkpoint rotated_at (0: never rotated)
--          4 now                           5 replay window               6 life of the key
--          7 latest moment at which to act, by this node's own clock     8 how long an answer may be under way
--          9 when the request arrived: before 4, by as long as it had to wait for PostgreSQL
--         10 "1": an earlier use of 1 got no answer, and nobody is known to have been given the generation after it
-- Times are milliseconds; 3, 4 and 9 are PostgreSQL's clock. Returns {outcome, generation, rotated_at, node's clock}.

local presented = tonumber(ARGV[1])
local current = tonumber(ARGV[2])
local rotated_at = tonumber(ARGV[3])
local replayed_at = 0
local now = tonumber(ARGV[4])
local window = tonumber(ARGV[5])
local life = ARGV[6]
local not_after = tonumber(ARGV[7])
local under_way = tonumber(ARGV[8])
local arrived = tonumber(ARGV[9])
local unanswered = ARGV[10] == '1'

local time = redis.call('TIME')
local node_now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function answer(outcome)
  return {outcome, current, rotated_at, node_now}
end

local function store()
  local value = string.format('%d %d', current, rotated_at)
  if replayed_at > 0 then
    value = value .. string.format(' %d', replayed_at)
  end
  redis.call('SET', KEYS[1], value, 'PX', life)
end

-- A command that waited too long, in a stopped process or before a stalled Redis, carries an old `now`: a rotation
-- dated then would have its window behind it, and the next honest retry would look like theft.
if node_now > not_after then
  return answer('late')
end

-- pcall: a value that is not ours, of whatever type, is as good as none.
local stored = redis.pcall('GET', KEYS[1])
if type(stored) == 'string' then
  local generation, rotated, replayed = string.match(stored, '^(%d+) (%d+) ?(%d*)$')
  generation, rotated = tonumber(generation), tonumber(rotated)
  if generation and (generation > current or (generation == current and rotated >= rotated_at)) then
    current, rotated_at, replayed_at = generation, rotated, tonumber(replayed) or 0
  end
end

-- What a rotation is dated by is `now`; whether somebody came in time, by when they came. It only ever holds a rotation
-- back, so generations stay a window apart.
local within_window = rotated_at > 0 and arrived - rotated_at < window

if presented > current then
  current, rotated_at, replayed_at = presented, now, 0
  store()
  return answer('adopted')
elseif presented == current - 1 and unanswered then
  -- It was rotated, and whoever asked for that was told to ask again: so it is made now.
  rotated_at = math.max(now, rotated_at)
  store()
  return answer('rotated')
elseif presented == current then
  -- The last replays of this generation may still be under way to the caller's cookie jar. One that arrived after its
  -- successor would overwrite it, and be taken for theft once the window is over.
  if within_window or now - replayed_at < under_way then
    return answer('held')
  end
  current, rotated_at, replayed_at = current + 1, now, 0
  store()
  return answer('rotated')
elseif presented == current - 1 and within_window then
  if now - rotated_at > window - under_way then
    replayed_at = now
    store()
  end
  return answer('replayed')
elseif arrived < rotated_at then
  -- It came before the current generation existed: a straggler, which proves nothing about theft.
  return answer('late')
end
return answer('reused')
