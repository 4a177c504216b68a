// Connected components and PageRank by GraphX, checked:
//   mezz spark shell --master host:5050 -i graphx.scala
import org.apache.spark.graphx.{Edge, Graph}

def components(): String = {
  // Rings; a component is named after the smallest of its vertices.
  val rings = Seq(1L to 3L, 10L to 14L, 100L to 106L)
  val edges = rings.flatMap(ring => ring.map(v => Edge(v, if (v == ring.last) ring.head else v + 1, 0)))
  val graph = Graph.fromEdges(sc.parallelize(edges, 2), 0)
  val found = graph.connectedComponents().vertices.map { case (_, component) => (component, 1) }.countByKey()
  val right = rings.map(ring => (ring.head, ring.size.toLong)).toMap
  require(found.toMap == right, s"the components are $found, not $right")
  s"components: ${found.toSeq.sorted.map { case (name, size) => s"$name with $size vertices" }.mkString(", ")}"
}

def ranks(): String = {
  val pages = 0L until 20L
  val links = pages.flatMap(v => Seq((v, (v + 1) % 20), (v, (v * v + 3) % 20)))
  val rounds = 6
  val graph = Graph.fromEdges(sc.parallelize(links.map { case (from, to) => Edge(from, to, 0) }, 2), 0)
  val found = graph.staticPageRank(rounds).vertices.collect().toMap
  // The same by hand: a page gives each of its two links half of its rank.
  var right = pages.map(v => (v, 1.0)).toMap
  for (_ <- 1 to rounds) {
    val before = right
    right = pages.map(v => (v, 0.15 + 0.85 * links.filter(_._2 == v).map(link => before(link._1) / 2).sum)).toMap
  }
  val wrong = pages.filter(v => math.abs(found(v) - right(v)) > 1e-9)
  require(wrong.isEmpty, s"the ranks of $wrong are wrong: $found, not $right")
  val (best, rank) = found.maxBy(_._2)
  f"ranks: page $best has the highest, $rank%.4f"
}

val status = try { println(components()); println(ranks()); 0 } catch { case e: Exception => Console.err.println(s"wrong: ${e.getMessage}"); 1 }
sys.exit(status)
