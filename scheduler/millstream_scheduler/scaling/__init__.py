"""The Kubernetes metrics API that an autoscaler reads: our readings, in its words.

    figures     what can be asked for, and the answer out of the readings
    selectors   which queues are meant
    documents   the JSON of discovery, values and refusals
    front_proxy who asks, by the word of the API server
    kubernetes  the two calls of the API server: whose word counts, who may ask
    reviews     who may ask, remembered for a while
    server      HTTP over it all

Nothing here asks Redis anything.
"""
