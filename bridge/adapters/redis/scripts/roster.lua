-- The processes and the server's time in ms; writes nothing. KEYS: the roster's base.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
return {string.format('%d', now), redis.call('HGETALL', KEYS[1] .. ':members')}
