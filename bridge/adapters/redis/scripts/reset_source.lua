-- Forget keys of a source, while our lease holds; -1 when it does not any more.
-- KEYS: the source's base, the lease's key, what is forgotten. ARGV: token and owner.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
for i = 3, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 0
