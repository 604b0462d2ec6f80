-- Claims of a turn since its text last grew: five in vain, and the message is at fault. A turn that gets on between
-- the deaths of its replicas may be claimed any number of times.
alter table rustygpt.turns add column attempts integer not null default 0;
