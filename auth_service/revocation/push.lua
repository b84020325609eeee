-- Append messages to the revocation stream.
-- KEYS[1] the stream; ARGV: milliseconds that a message is kept, then the messages.
--
-- Trimmed by this node's own clock, which is also what the ids are made of; the whole key has a life, as every key has.
-- What somebody else may have put under the name of the stream gives way.

local life = tonumber(ARGV[1])
local time = redis.call('TIME')
local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - life
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'stream' and kind ~= 'none' then
    redis.call('DEL', KEYS[1])
end
for index = 2, #ARGV do
    redis.call('XADD', KEYS[1], 'MINID', '~', string.format('%.0f', math.max(oldest, 0)), '*', 'entries', ARGV[index])
end
redis.call('PEXPIRE', KEYS[1], 2 * life)
return #ARGV - 1
