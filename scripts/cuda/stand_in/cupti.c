// What stands in for CUPTI: who subscribes is told of launches.
void tell_calls_to(void *whom);

int cuptiSubscribe(void **subscriber, void *whom, void *data) { return *subscriber = (void *)8, tell_calls_to(whom), 0; }
int cuptiEnableDomain(unsigned on, void *subscriber, int domain) { return 0; }
