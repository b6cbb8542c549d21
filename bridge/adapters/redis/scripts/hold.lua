-- Renew a lease, or with a ttl of 0 give it back; 0 when it is not ours any more.
-- KEYS: lease. ARGV: token and owner, ttl in ms.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
