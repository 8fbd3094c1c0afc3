import sys, time
from pathlib import Path
def test_oracle(tmp_path, postgres_database, rabbitmq_vhost):
    from tests.support.oracle_world import oracle_world
    from tests.support.oracle_check import verdict, await_closed
    from tests.support.deployment import deployed
    with oracle_world(tmp_path) as world, deployed(tmp_path/"d", {**world.environment, "HABEAS_DATABASE_URL": postgres_database, "HABEAS_BROKER_URL": rabbitmq_vhost, "HABEAS_LEASE_SECONDS":"2","HABEAS_SWEEP_SECONDS":"0.3"}, "intake","worker","clock") as d:
        with world.sender(d.settings) as s:
            t=time.time()
            asked=[s.erase() for _ in range(40)]+[s.access() for _ in range(20)]
            try:
                await_closed(d, asked, 30)
            finally:
                print(d.logs()[-3000:])
            print("closed", time.time()-t)
        assert verdict(world, d, asked) == []
        print(d.habeas("audit","verify","--all").stdout)
