// Fields that are behind a pointer: the build gives it to prost, and the estimate of what a
// message takes decoded has to know it. Included by both.
&[
    // Four fifths of each resource for what hardly one has, and resources are most of every
    // message.
    ".mesos.v1.Resource.disk",
    // Four fifths of each task; an agent that comes back may have thousands.
    ".mesos.v1.Task.discovery",
    ".mesos.v1.Task.container",
    ".mesos.v1.Task.health_check",
    // Fourteen fifteenths of each operation; an ACCEPT may have thousands.
    ".mesos.v1.Offer.Operation.launch_group",
    ".mesos.v1.Offer.Operation.grow_volume",
    ".mesos.v1.Offer.Operation.shrink_volume",
    ".mesos.v1.Offer.Operation.create_disk",
    ".mesos.v1.Offer.Operation.destroy_disk",
]
